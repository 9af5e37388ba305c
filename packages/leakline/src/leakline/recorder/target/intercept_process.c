/* The wrappers of functions that make processes, or change what a process's descriptors are as a whole. See intercepted.h. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <termios.h>
#include <unistd.h>

#include "intercept.h"
#include "system_calls.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

/* 0, 1 and 2 are copies of something that the recorder did not see being opened. */
static void standard_streams_replaced(enum leakline_function function, struct leakline_registers caller) {
    for (int number = 0; number <= 2; number++)
        leakline_replaced(number, LEAKLINE_HOW_DUPLICATED, -1, function, caller);
}

pid_t leakline_intercept_forkpty(int *master, char *name, const struct termios *settings, const struct winsize *size) {
    pid_t result = LEAKLINE_REAL(forkpty)(master, name, settings, size);
    if (LEAKLINE_WANTED) {
        if (result == 0)
            standard_streams_replaced(LEAKLINE_FUNCTION_forkpty, LEAKLINE_CALLER);
        else
            leakline_made(result > 0 ? *master : -1, LEAKLINE_HOW_OPENED, -1, LEAKLINE_FUNCTION_forkpty, LEAKLINE_CALLER);
    }
    return result;
}
LEAKLINE_EXPORT(forkpty);

int leakline_intercept_login_tty(int number) {
    if (!LEAKLINE_WANTED)
        return LEAKLINE_REAL(login_tty)(number);
    int result = LEAKLINE_REAL(login_tty)(number);
    if (result == 0) {
        standard_streams_replaced(LEAKLINE_FUNCTION_login_tty, LEAKLINE_CALLER);
        if (number > 2)
            leakline_before_close(number, LEAKLINE_FUNCTION_login_tty, LEAKLINE_CALLER);
    }
    return result;
}
LEAKLINE_EXPORT(login_tty);

int leakline_intercept_daemon(int keep_folder, int keep_streams) {
    int result = LEAKLINE_REAL(daemon)(keep_folder, keep_streams);
    if (result == 0 && !keep_streams && LEAKLINE_WANTED)
        standard_streams_replaced(LEAKLINE_FUNCTION_daemon, LEAKLINE_CALLER);
    return result;
}
LEAKLINE_EXPORT(daemon);

/* /proc/PID/fd are the descriptors of the first thread. Another thread's own are neither seen there nor recorded. */
void leakline_unshared(void) {
    if (leakline_call0(SYS_gettid) != leakline_call0(SYS_getpid))
        leakline_vfork_begin();
}

int leakline_intercept_unshare(int flags) {
    int result = LEAKLINE_REAL(unshare)(flags);
    if (result == 0 && flags & CLONE_FILES && LEAKLINE_WANTED)
        leakline_unshared();
    return result;
}
LEAKLINE_EXPORT(unshare);

/* What was not passed is read all the same, as libc does. */
int leakline_intercept_prctl(int option, ...) {
    unsigned long a[4];
    va_list list;
    va_start(list, option);
    for (int i = 0; i < 4; i++)
        a[i] = va_arg(list, unsigned long);
    va_end(list);
    if (option == PR_SET_SECCOMP && LEAKLINE_WANTED)
        leakline_recording_seal();
    return LEAKLINE_REAL(prctl)(option, a[0], a[1], a[2], a[3]);
}
LEAKLINE_EXPORT(prctl);

/* The child begins in `start`, on another stack, and never returns here. What was not passed is read all the same, as libc does. */
#define LEAKLINE_DEFINE(name)                                                                                                      \
    int leakline_intercept_##name(int (*start)(void *), void *stack, int flags, void *argument, ...) {                             \
        va_list list;                                                                                                              \
        va_start(list, argument);                                                                                                  \
        void *parent_tid = va_arg(list, void *), *storage = va_arg(list, void *), *child_tid = va_arg(list, void *);               \
        va_end(list);                                                                                                              \
        bool shared = flags & CLONE_VM && !(flags & CLONE_THREAD), waits = shared && flags & CLONE_VFORK;                          \
        if (waits)                                                                                                                 \
            leakline_vfork_begin();                                                                                                \
        else if (shared)                                                                                                           \
            leakline_memory_is_shared();                                                                                           \
        int result = LEAKLINE_REAL(name)(start, stack, flags, argument, parent_tid, storage, child_tid);                           \
        if (waits)                                                                                                                 \
            leakline_vfork_end();                                                                                                  \
        if (result > 0 && flags & CLONE_PIDFD && LEAKLINE_WANTED)                                                                  \
            leakline_made(*(int *)parent_tid, LEAKLINE_HOW_OPENED, -1, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);                 \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_DEFINE(clone)
LEAKLINE_DEFINE(__clone)
#undef LEAKLINE_DEFINE
