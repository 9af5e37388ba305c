/* Stops one thread of another process where functions may be called, and lets it go on as if nothing had been. */
#ifndef LEAKLINE_PTRACE_THREAD_H
#define LEAKLINE_PTRACE_THREAD_H

#include "ptrace_call.h"
#include "ptrace_registers.h"

struct leakline_thread {
    pid_t pid, tid;
    int memory;                     /* /proc/PID/mem, open for reading and writing */
    uint64_t stopped_at_ns;
    uint64_t waited_before_ns;
    bool entered;                   /* stopped as it entered the system call; else it was waiting in it */
    long system_call;
    bool rewound;                   /* `saved` are the registers just before the system call, which is done (again) from there */
    uint64_t ends_at_ns;            /* when the call's timeout is over, that the thread has to enter anew; 0 none */
    leakline_user_registers saved;  /* to go on with */
    unsigned char floating[LEAKLINE_FLOATING_SIZE];
    size_t floating_size;
    int floating_set;
    bool masked;                    /* it blocks all signals now, and `mask` is what it blocked before */
    uint64_t mask;
    int signal;                     /* that arrived meanwhile and cannot be blocked: it is delivered at the end */
};

uint64_t leakline_now_ns(void); /* descriptor_table.c */

/* Finds a thread at a safe point within patience_ms and stops it there. A leakline_remote_status. */
int leakline_thread_stop(struct leakline_thread *thread, const struct leakline_remote *remote);
/* Waits for the thread's next stop: a wait status. 0: not within the time (an absolute one). -1: it is gone. */
int leakline_thread_wait(const struct leakline_thread *thread, uint64_t until_ns);
/* Puts everything back and lets go. False: it is gone. */
bool leakline_thread_release(struct leakline_thread *thread);

/* --- ptrace_wait.c: what a thread waits in, as /proc tells */

enum leakline_wait {
    LEAKLINE_WAIT_NO,      /* no call may be made here */
    LEAKLINE_WAIT_EXACT,   /* goes on with the time that is left, by the kernel */
    LEAKLINE_WAIT_FUTEX,   /* a condition variable, semaphore or join: as exact, but the thread may be a small one of a library */
    LEAKLINE_WAIT_TIMED,   /* epoll with a timeout: has to be begun again, with the time that we think is left */
    LEAKLINE_WAIT_RUNNING, /* in no system call */
};

struct leakline_waiting {
    enum leakline_wait wait;
    long number;
    uint64_t arguments[6], sp, pc;
};

/* Whether a thread in this system call holds no lock of malloc or of the loader, and the call can be left and entered again. */
enum leakline_wait leakline_wait_kind(const struct leakline_remote *remote, long number, const uint64_t arguments[6], uint64_t pc);
/* Reads /proc/PID/task/TID/syscall. */
struct leakline_waiting leakline_waiting(const struct leakline_remote *remote, pid_t tid);
/* For how long a thread has been asleep; 0 where the kernel does not tell. */
uint64_t leakline_slept_ns(pid_t pid, pid_t tid);
/* How long a thread and we have waited for a processor so far. */
uint64_t leakline_waited_ns(pid_t pid, pid_t tid);
/* Whether its stack has room for the calls. */
bool leakline_stack_has_room(pid_t pid, uint64_t sp);
/* Whether a signal waits for the thread that `mask` does not block and that the process has a handler for. */
bool leakline_signal_waits(pid_t pid, pid_t tid, uint64_t mask);
/* Whether a system call of this number never goes on after a handler has run, SA_RESTART or not (signal(7)). */
bool leakline_never_restarted(long number);

#endif
