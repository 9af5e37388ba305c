/* The wrappers of functions that close descriptors. See intercepted.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>

#include "intercept.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2u
#define CLOSE_RANGE_CLOEXEC 4u
#endif

/* fclose() fails with EBADF also when it cannot write what it has left: only a look beforehand tells that the descriptor was closed already. */
static bool is_open(int number) {
    int error = errno;
    bool open = number < 0 || LEAKLINE_REAL(fcntl)(number, F_GETFD, NULL) >= 0;
    errno = error;
    return open;
}

#define LEAKLINE_DEFINE(name, parameters, arguments, descriptor, ambiguous)                                                        \
    int leakline_intercept_##name parameters {                                                                                     \
        if (!LEAKLINE_WANTED)                                                                                                      \
            return LEAKLINE_REAL(name) arguments;                                                                                  \
        int closed = descriptor;                                                                                                   \
        bool open = (ambiguous) && is_open(closed);                                                                                \
        uint32_t stack = leakline_before_close(closed, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);                                 \
        int result = LEAKLINE_REAL(name) arguments;                                                                                \
        if (result == -1 && errno == EBADF && !open)                                                                               \
            leakline_after_failed_close(closed, LEAKLINE_FUNCTION_##name, stack);                                                  \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_CLOSERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

/* Whether the kernel knows close_range: it would fail, and nothing be closed, if not. An empty range tells. */
static bool knows_close_range(void) {
    static int known; /* 1: yes, -1: no */
    if (!known) {
        int error = errno;
        known = LEAKLINE_REAL(close_range)(~0u, ~0u, 0) == 0 ? 1 : -1;
        errno = error;
    }
    return known > 0;
}

int leakline_intercept_close_range(unsigned first, unsigned last, int flags) {
    if (!LEAKLINE_WANTED)
        return LEAKLINE_REAL(close_range)(first, last, flags);
    bool valid = first <= last && ((unsigned)flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) == 0;
    if ((unsigned)flags & CLOSE_RANGE_UNSHARE && valid)
        leakline_unshared();
    if (valid && !((unsigned)flags & CLOSE_RANGE_CLOEXEC) && knows_close_range())
        leakline_before_close_range(first, last, LEAKLINE_FUNCTION_close_range, LEAKLINE_CALLER);
    return LEAKLINE_REAL(close_range)(first, last, flags);
}
LEAKLINE_EXPORT(close_range);

void leakline_intercept_closefrom(int first) {
    if (LEAKLINE_WANTED)
        leakline_before_close_range(first < 0 ? 0 : (unsigned)first, ~0u, LEAKLINE_FUNCTION_closefrom, LEAKLINE_CALLER);
    LEAKLINE_REAL(closefrom)(first);
}
LEAKLINE_EXPORT(closefrom);
