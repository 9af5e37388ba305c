/* A performance counter is opened for each sample; reading it ends the sample, and nobody closes it. */
#include <linux/perf_event.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../pace.h"

static int64_t sample(void)
{
    struct perf_event_attr what;
    memset(&what, 0, sizeof what);
    what.size = sizeof what;
    what.type = PERF_TYPE_SOFTWARE; /* hardware counters need a machine that has them */
    what.config = PERF_COUNT_SW_TASK_CLOCK;
    what.exclude_kernel = 1;
    int counter = (int)syscall(SYS_perf_event_open, &what, 0, -1, -1, PERF_FLAG_FD_CLOEXEC); /* casebook: counter */
    int64_t nanoseconds = -1;
    if (counter < 0 || read(counter, &nanoseconds, sizeof nanoseconds) != sizeof nanoseconds)
        return -1;
    return nanoseconds;
}

int main(void)
{
    for (unsigned number = 0; pace_next(number, 10); number++)
        if (sample() < 0)
            perror("profile");
}
