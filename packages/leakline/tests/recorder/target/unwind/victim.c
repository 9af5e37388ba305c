/* A library built twice, with frames of different size but the same code size (FRAME: 1000 or 2000 bytes). */
void through(void (*function)(void));

void through(void (*function)(void)) {
    volatile char room[FRAME];
    room[0] = 1;
    function();
    room[1] = room[0];
}
