/* pace.h: so many requests a second, as a server would have them, for three minutes at the most; "ready" is printed
 * after the first few, so that whoever looks sees a program at work and not its start.
 *
 *     for (unsigned request = 0; pace_next(request, 10); request++) handle(request);
 */
#ifndef CASEBOOK_PACE_H
#define CASEBOOK_PACE_H

#include <stdio.h>
#include <time.h>

enum { PACE_SECONDS = 180, PACE_WARM_UP = 5 };

/* Waits until it is the turn of `request` (from 0), one each 1 / `per_second` s. 0 when the time is over. */
static inline int pace_next(unsigned request, unsigned per_second)
{
    static struct timespec due;
    if (request == 0)
        clock_gettime(CLOCK_MONOTONIC, &due);
    if (request == PACE_WARM_UP)
        puts("ready"), fflush(stdout);
    due.tv_nsec += 1000000000L / per_second;
    if (due.tv_nsec >= 1000000000L) {
        due.tv_sec++;
        due.tv_nsec -= 1000000000L;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0)
        ;
    return request < PACE_SECONDS * per_second;
}

#endif
