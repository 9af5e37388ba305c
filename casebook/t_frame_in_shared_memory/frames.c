/* Each video frame goes to the encoder through shared memory. It is unmapped afterwards; its descriptor is forgotten. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../pace.h"

enum { FRAME_BYTES = 64 * 1024 };

static int encode(unsigned number)
{
    int memory = memfd_create("frame", MFD_CLOEXEC); /* casebook: memory */
    if (memory < 0 || ftruncate(memory, FRAME_BYTES) != 0)
        return -1;
    void *frame = mmap(NULL, FRAME_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
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
