/* The wrappers of functions that close descriptors. See intercepted.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>

#include "intercept.h"
#include "system_calls.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2u
#define CLOSE_RANGE_CLOEXEC 4u
#endif
#ifndef SYS_close_range
#define SYS_close_range 436 /* on both machines */
#endif

/* fclose() fails with EBADF also when it cannot write what it has left: only a look beforehand tells that the descriptor was closed already. */
static bool is_open(int number) { return number < 0 || leakline_call3(SYS_fcntl, number, F_GETFD, 0) >= 0; }

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

/* Whether the kernel knows close_range: nothing would be closed if not. An empty range tells. */
static bool knows_close_range(void) {
    static int known; /* 1: yes, -1: no */
    if (!known)
        known = leakline_call3(SYS_close_range, -1, -1, 0) == 0 ? 1 : -1;
    return known > 0;
}

bool leakline_close_range_closes(unsigned first, unsigned last, unsigned flags) {
    if (first > last || flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) || !knows_close_range())
        return false;
    if (flags & CLOSE_RANGE_UNSHARE)
        leakline_unshared();
    return !(flags & CLOSE_RANGE_CLOEXEC);
}

int leakline_intercept_close_range(unsigned first, unsigned last, int flags) {
    if (LEAKLINE_WANTED && leakline_close_range_closes(first, last, (unsigned)flags))
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
