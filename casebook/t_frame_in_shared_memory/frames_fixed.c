/* The frames put right: a mapping does not need the descriptor that it was made from, so that is closed at once. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../pace.h"

enum { FRAME_BYTES = 64 * 1024 };

static void *map_and_close(int memory)
{
    void *frame = MAP_FAILED;
    if (ftruncate(memory, FRAME_BYTES) == 0)
        frame = mmap(NULL, FRAME_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    close(memory);
    return frame;
}

static int encode(unsigned number)
{
    int memory = memfd_create("frame", MFD_CLOEXEC);
    void *frame = memory < 0 ? MAP_FAILED : map_and_close(memory);
    if (frame == MAP_FAILED)
        return -1;
    memset(frame, (int)number, FRAME_BYTES);
    return munmap(frame, FRAME_BYTES);
}

int main(void)
{
    for (unsigned frame = 0; pace_next(frame, 10); frame++)
        if (encode(frame) != 0)
            perror("frames");
}
