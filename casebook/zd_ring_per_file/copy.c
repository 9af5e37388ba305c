/* A ring (io_uring) for each file that is read; its memory is given back, the ring itself is not closed. */
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../pace.h"

static int ring_for_a_file(void)
{
    struct io_uring_params parameters;
    memset(&parameters, 0, sizeof parameters);
    int ring = (int)syscall(SYS_io_uring_setup, 8, &parameters); /* casebook: ring */
    if (ring < 0)
        return -1;
    size_t bytes = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
    void *queue = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    return queue == MAP_FAILED ? -1 : munmap(queue, bytes);
}

int main(void)
{
    for (unsigned file = 0; pace_next(file, 10); file++)
        if (ring_for_a_file() != 0)
            perror("copy");
}
