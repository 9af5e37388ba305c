/* A library to be loaded into a process: its functions do what could hurt a thread that is stopped anywhere. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

static int count;

/* Overwrites errno, vector registers and the heap's and the stack's free parts; returns how often it was called. */
PUBLIC int spoil(const char *text) {
    volatile char room[16384];
    volatile double sum = 0;
    memset((void *)room, 0xa5, sizeof room);
    for (int i = 0; i < 100; i++)
        sum += (double)i * 1.5 + room[i];
    free(memset(malloc(100000), 0x5a, 100000));
    errno = text ? (int)strlen(text) : -1;
    return ++count;
}

PUBLIC int fault(const char *text) { return *(volatile int *)(text ? 16L : 8L); }

PUBLIC int never_end(const char *text) {
    (void)text;
    for (;;)
        pause();
}

/* Lasts long enough for a signal to arrive meanwhile. Not by nanosleep, which resets what an interrupted nanosleep needs to go on. */
PUBLIC int linger(const char *text) { return poll(NULL, 0, text ? atoi(text) : 0); }
