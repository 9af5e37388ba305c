/* The wrapper of syscall(): what it calls is recorded as if its own function were called. See intercepted.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "intercept.h"
#include "system_call_numbers.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

/* Commands of bpf() that make a descriptor: MAP_CREATE, PROG_LOAD, OBJ_GET, the *_GET_FD_BY_ID, RAW_TRACEPOINT_OPEN, BTF_LOAD, LINK_CREATE,
 * ENABLE_STATS, ITER_CREATE, TOKEN_CREATE. */
static bool leakline_bpf_opens(int command) {
    static const unsigned char opening[] = {0, 5, 7, 13, 14, 17, 18, 19, 28, 30, 32, 33, 36};
    for (unsigned i = 0; i < sizeof opening; i++)
        if (command == opening[i])
            return true;
    return false;
}

struct made {
    enum leakline_how how;
    int related;
};

/* How a call that returns a descriptor makes it; false: it makes none. */
static bool makes(long number, long a, long b, long c, struct made *made) {
#define LEAKLINE_CASE(name, manner, from, is_new)                                                                                  \
    case SYS_##name:                                                                                                               \
        *made = (struct made){LEAKLINE_HOW_##manner, from};                                                                        \
        return is_new;
    switch (number) {
        LEAKLINE_SYSTEM_CALLS(LEAKLINE_CASE)
    }
#undef LEAKLINE_CASE
    return false;
}

static void record_pair(long result, const int *numbers, struct leakline_registers caller) {
    int none[2] = {-1, -1};
    leakline_made_pair(result == 0, result == 0 ? numbers : none, LEAKLINE_FUNCTION_syscall, caller);
}

/* A process that was made with a descriptor for it: clone3() is told in a structure, whose second word points to where it is put. */
static void record_process(long number, long result, long a, long c, struct leakline_registers caller) {
    uint64_t flags = number == SYS_clone3 ? *(const uint64_t *)a : (uint64_t)a;
    const int *pidfd = number == SYS_clone3 ? (const int *)(uintptr_t)((const uint64_t *)a)[1] : (const int *)c;
    if (result > 0 && flags & CLONE_PIDFD && !(flags & CLONE_VM))
        leakline_made(*pidfd, LEAKLINE_HOW_OPENED, -1, LEAKLINE_FUNCTION_syscall, caller);
}

static void record_after(long number, long result, const long *arguments, struct leakline_registers caller) {
    long a = arguments[0], b = arguments[1], c = arguments[2];
    struct made made;
    if (makes(number, a, b, c, &made)) {
        leakline_made((int)result, made.how, made.related, LEAKLINE_FUNCTION_syscall, caller);
        return;
    }
    switch (number) {
    case SYS_dup2:
    case SYS_dup3:
        if (result >= 0 && (int)a != (int)b)
            leakline_replaced((int)b, LEAKLINE_HOW_DUPLICATED, (int)a, LEAKLINE_FUNCTION_syscall, caller);
        break;
    case SYS_pipe:
    case SYS_pipe2:
        record_pair(result, (const int *)a, caller);
        break;
    case SYS_socketpair:
        record_pair(result, (const int *)arguments[3], caller);
        break;
    case SYS_recvmsg:
        if (result >= 0)
            leakline_received((const struct msghdr *)b, LEAKLINE_FUNCTION_syscall, caller);
        break;
    case SYS_recvmmsg:
        for (long i = 0; i < result; i++)
            leakline_received(&((const struct mmsghdr *)b)[i].msg_hdr, LEAKLINE_FUNCTION_syscall, caller);
        break;
    case SYS_clone:
    case SYS_clone3:
        record_process(number, result, a, c, caller);
        break;
    }
}

/* libc's syscall() reads six arguments whatever was passed, and so does this one. */
long leakline_intercept_syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    uint32_t stack = 0;
    if (number == SYS_close && LEAKLINE_WANTED)
        stack = leakline_before_close((int)a[0], LEAKLINE_FUNCTION_syscall, LEAKLINE_CALLER);
    else if (number == SYS_close_range && LEAKLINE_WANTED && leakline_close_range_closes((unsigned)a[0], (unsigned)a[1], (unsigned)a[2]))
        leakline_before_close_range((unsigned)a[0], (unsigned)a[1], LEAKLINE_FUNCTION_syscall, LEAKLINE_CALLER);
    else if (((number == SYS_seccomp && a[0] <= 1) || (number == SYS_prctl && a[0] == PR_SET_SECCOMP)) && LEAKLINE_WANTED)
        leakline_recording_seal(); /* SECCOMP_SET_MODE_STRICT and _FILTER */
    long result = LEAKLINE_REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (!LEAKLINE_WANTED)
        return result;
    if (number == SYS_close && result == -1 && errno == EBADF)
        leakline_after_failed_close((int)a[0], LEAKLINE_FUNCTION_syscall, stack);
    else
        record_after(number, result, a, LEAKLINE_CALLER);
    return result;
}
LEAKLINE_EXPORT(syscall);
