/* Stops one thread of another process at a safe point, and lets it go on.
 *
 * What PTRACE_INTERRUPT does to a waiting system call (Linux, kernel/signal.c and each call): most return -ERESTART…, which the kernel turns
 * into going on when it finds no handler to run, with the time that is left (nanosleep, poll, futex: through restart_syscall; select and
 * ppoll wrote the rest into their argument). It decides so when the thread leaves its stop, by orig_rax and rax: with the registers of
 * the stop put back, it decides for the original call, whatever ran meanwhile. That needs the thread's restart block untouched: signal
 * handlers reset it (rt_sigreturn), so all signals are blocked meanwhile.
 * epoll_wait is never restarted: it returns -EINTR. It is begun again here, with the time that is left.
 * aarch64 decides before the stop: there the thread is led on to the entry of the restarted call first, as a running one is.
 */
#define _GNU_SOURCE
#include "ptrace_thread.h"
#include "old_names.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif
#define STEP_NS 50000000ull /* how long a running thread is followed to its next system call */
#define STOP_NS 1000000000ull
#define PAUSE_NS 500000 /* between two looks at all threads */

enum { KERNEL_ERESTARTSYS = 512, KERNEL_ERESTART_RESTARTBLOCK = 516 }; /* include/linux/errno.h: never seen by programs */

/* SIGCHLD is blocked (ptrace_call.c): it is kept until it is waited for, so no stop is missed between the two looks. */
int leakline_thread_wait(const struct leakline_thread *thread, uint64_t until_ns) {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    for (;;) {
        int status;
        pid_t found = waitpid(thread->tid, &status, __WALL | WNOHANG);
        if (found < 0 && errno != EINTR)
            return -1;
        if (found > 0)
            return WIFSTOPPED(status) ? status : -1;
        uint64_t now = leakline_now_ns();
        if (now >= until_ns)
            return 0;
        uint64_t left = until_ns - now;
        struct timespec time = {(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
        sigtimedwait(&child, NULL, &time);
    }
}

static bool is_event_stop(int status) { return status >> 16 == PTRACE_EVENT_STOP; }

static bool registers_of(pid_t tid, leakline_user_registers *registers) {
    size_t size = sizeof *registers;
    return leakline_regset_get(tid, NT_PRSTATUS, registers, &size) && size == sizeof *registers;
}

/* Stops the thread wherever it is; one that stands at the entry of a system call: behind it. False: gone, or not within a second (it sleeps
 * uninterruptibly). */
static bool interrupt(struct leakline_thread *thread, bool stands) {
    uint64_t until = leakline_now_ns() + STOP_NS;
    if (ptrace(PTRACE_INTERRUPT, thread->tid, NULL, NULL) != 0 || (stands && ptrace(PTRACE_CONT, thread->tid, NULL, NULL) != 0))
        return false;
    for (;;) {
        int status = leakline_thread_wait(thread, until);
        if (status <= 0)
            return false;
        if (is_event_stop(status))
            return true;
        /* a signal that was on its way: delivered, and the interruption still to come; or a system call that was being traced */
        int signal = WSTOPSIG(status);
        if (ptrace(PTRACE_CONT, thread->tid, NULL, (void *)(long)(signal & 0x80 ? 0 : signal)) != 0)
            return false;
    }
}

static bool detach(const struct leakline_thread *thread, int signal) {
    return ptrace(PTRACE_DETACH, thread->tid, NULL, (void *)(long)signal) == 0;
}

/* A call that the kernel has just ended with EINTR because of our interruption is begun again. x86_64: elsewhere its number is forgotten. */
static void undo_interruption(const struct leakline_thread *thread) {
    leakline_user_registers registers;
    uint64_t arguments[6], mask = 0;
    if (!registers_of(thread->tid, &registers) || leakline_result(&registers) != -EINTR)
        return;
    long number = leakline_system_call(thread->tid, &registers, arguments);
    ptrace(PTRACE_GETSIGMASK, thread->tid, (void *)sizeof mask, &mask);
    if (number < 0 || !leakline_never_restarted(number) || leakline_signal_waits(thread->pid, thread->tid, mask))
        return;
    leakline_rewind(&registers, number, arguments[0]);
    leakline_regset_set(thread->tid, NT_PRSTATUS, &registers, sizeof registers);
}

/* A thread that will not be used goes on as if it had not been stopped. */
static void give_up(const struct leakline_thread *thread) {
    undo_interruption(thread);
    detach(thread, 0);
}

/* Begins a call again that the kernel has ended with EINTR because of us; epoll_wait until it would have ended: the thread was stopped when
 * it had slept for that long. */
static void begin_again(struct leakline_thread *thread, const struct leakline_waiting *waiting, uint64_t slept_ns) {
    leakline_rewind(&thread->saved, waiting->number, waiting->arguments[0]);
    thread->rewound = true;
    if (waiting->wait != LEAKLINE_WAIT_TIMED || waiting->number == 441) /* epoll_pwait2's is in the program's memory, for it to read */
        return;
    uint64_t timeout = (uint64_t)(int)waiting->arguments[3] * 1000000u;
    thread->ends_at_ns = thread->stopped_at_ns + (slept_ns < timeout ? timeout - slept_ns : 0);
}

/* Lets a stopped thread run to the entry of its next safe system call, and takes that call back. */
static bool go_to_entry(struct leakline_thread *thread, const struct leakline_remote *remote) {
    uint64_t until = leakline_now_ns() + STEP_NS, arguments[6];
    leakline_user_registers registers;
    bool entry = false; /* an interruption stops beyond the exit of a system call: the next stop is an entry */
    int signal = 0;
    for (;;) {
        if (ptrace(PTRACE_SYSCALL, thread->tid, NULL, (void *)(long)signal) != 0)
            return false;
        int status = leakline_thread_wait(thread, until);
        if (status == 0) {
            if (interrupt(thread, false))
                give_up(thread);
            return false;
        }
        if (status < 0)
            return false;
        signal = is_event_stop(status) || WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
        if (WSTOPSIG(status) != (SIGTRAP | 0x80))
            continue;
        entry = !entry;
        if (!entry || !registers_of(thread->tid, &registers))
            continue;
        long number = leakline_system_call(thread->tid, &registers, arguments);
        enum leakline_wait wait = leakline_wait_kind(remote, number, arguments, leakline_pc(&registers));
        if (wait == LEAKLINE_WAIT_NO || !leakline_stack_has_room(thread->pid, leakline_sp(&registers)))
            continue;
        /* The stop at the exit would show another x7 on aarch64 than the program's: an interruption's does not. */
        if (!leakline_skip_system_call(thread->tid, &registers) || !interrupt(thread, true) || !registers_of(thread->tid, &thread->saved))
            return false;
        leakline_rewind(&thread->saved, number, arguments[0]);
        thread->rewound = thread->entered = true;
        thread->system_call = number;
        return true;
    }
}

#if defined(__x86_64__)
/* The thread was interrupted in the call that it was seen in, and the kernel will know how to go on with it. */
static bool take_where_it_waits(struct leakline_thread *thread, const struct leakline_waiting *waiting, uint64_t slept_ns) {
    uint64_t arguments[6];
    long number = leakline_system_call(thread->tid, &thread->saved, arguments);
    if (number != waiting->number || leakline_pc(&thread->saved) != waiting->pc || leakline_sp(&thread->saved) != waiting->sp)
        return false;
    if (memcmp(arguments, waiting->arguments, sizeof arguments) != 0) /* entered anew since it was seen */
        return false;
    thread->system_call = number;
    if (leakline_result(&thread->saved) == -EINTR)
        begin_again(thread, waiting, slept_ns);
    return true;
}
#endif

/* Seizes one thread and stops it. Status DONE: it stands at a safe point; NO_SAFE_POINT: it was let go again. */
static int try_thread(struct leakline_thread *thread, const struct leakline_remote *remote, const struct leakline_waiting *waiting) {
    uint64_t slept_ns = waiting->wait == LEAKLINE_WAIT_TIMED ? leakline_slept_ns(thread->pid, thread->tid) : 0;
    long options = PTRACE_O_TRACESYSGOOD | (remote->suspend_seccomp ? PTRACE_O_SUSPEND_SECCOMP : 0);
    thread->waited_before_ns = leakline_waited_ns(thread->pid, thread->tid);
    thread->stopped_at_ns = leakline_now_ns();
    thread->entered = thread->rewound = false;
    thread->ends_at_ns = 0;
    if (ptrace(PTRACE_SEIZE, thread->tid, NULL, (void *)options) != 0) {
        int error = errno;
        if (error == EPERM && interrupt(thread, false)) { /* ours already: an earlier try could not stop it in time */
            give_up(thread);
            error = ESRCH;
        }
        errno = error;
        return error == ESRCH ? LEAKLINE_REMOTE_NO_SAFE_POINT : LEAKLINE_REMOTE_REFUSED;
    }
    if (!interrupt(thread, false) || !registers_of(thread->tid, &thread->saved)) {
        detach(thread, 0);
        return LEAKLINE_REMOTE_NO_SAFE_POINT;
    }
#if defined(__x86_64__)
    if (waiting->wait != LEAKLINE_WAIT_RUNNING) {
        if (take_where_it_waits(thread, waiting, slept_ns))
            return LEAKLINE_REMOTE_DONE;
        give_up(thread);
        return LEAKLINE_REMOTE_NO_SAFE_POINT;
    }
    undo_interruption(thread); /* it may have entered a call since it was seen running */
#else
    if (waiting->wait != LEAKLINE_WAIT_RUNNING && leakline_result(&thread->saved) == -EINTR) {
        begin_again(thread, waiting, slept_ns);
        leakline_regset_set(thread->tid, NT_PRSTATUS, &thread->saved, sizeof thread->saved);
    }
#endif
    if (!go_to_entry(thread, remote))
        return LEAKLINE_REMOTE_NO_SAFE_POINT;
    thread->waited_before_ns = leakline_waited_ns(thread->pid, thread->tid);
    thread->stopped_at_ns = leakline_now_ns();
    return LEAKLINE_REMOTE_DONE;
}

/* Looks once at every thread for one that waits like this. */
static int look_for(struct leakline_thread *thread, const struct leakline_remote *remote, enum leakline_wait wait) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", thread->pid);
    DIR *folder = opendir(path);
    int status = folder ? LEAKLINE_REMOTE_NO_SAFE_POINT : LEAKLINE_REMOTE_GONE;
    for (struct dirent *entry; folder && status == LEAKLINE_REMOTE_NO_SAFE_POINT && (entry = readdir(folder));) {
        thread->tid = atoi(entry->d_name);
        if (thread->tid <= 0)
            continue;
        struct leakline_waiting waiting = leakline_waiting(remote, thread->tid);
        if (waiting.wait == wait && (wait == LEAKLINE_WAIT_RUNNING || leakline_stack_has_room(thread->pid, waiting.sp)))
            status = try_thread(thread, remote, &waiting);
    }
    if (folder)
        closedir(folder);
    return status;
}

static bool save(struct leakline_thread *thread) {
    const int sets[] = {LEAKLINE_FLOATING_SET, NT_PRFPREG};
    uint64_t synchronous = 0, blocked;
    const int kept[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS}; /* blocked ones would be made SIG_DFL when they happen */
    for (unsigned i = 0; i < sizeof kept / sizeof *kept; i++)
        synchronous |= UINT64_C(1) << (kept[i] - 1);
    for (unsigned i = 0; i < 2; i++) {
        thread->floating_set = sets[i];
        thread->floating_size = sizeof thread->floating;
        if (leakline_regset_get(thread->tid, sets[i], thread->floating, &thread->floating_size))
            break;
        thread->floating_size = 0;
    }
    blocked = ~synchronous;
    return thread->floating_size && ptrace(PTRACE_GETSIGMASK, thread->tid, (void *)sizeof thread->mask, &thread->mask) == 0 &&
           (thread->masked = ptrace(PTRACE_SETSIGMASK, thread->tid, (void *)sizeof blocked, &blocked) == 0);
}

int leakline_thread_stop(struct leakline_thread *thread, const struct leakline_remote *remote) {
    const enum leakline_wait order[] = {LEAKLINE_WAIT_EXACT, LEAKLINE_WAIT_FUTEX, LEAKLINE_WAIT_TIMED, LEAKLINE_WAIT_RUNNING};
    uint64_t until = leakline_now_ns() + remote->patience_ms * UINT64_C(1000000);
    const struct timespec pause = {0, PAUSE_NS};
    do {
        for (unsigned i = 0; i < sizeof order / sizeof *order; i++) {
            int status = look_for(thread, remote, order[i]);
            if (status == LEAKLINE_REMOTE_NO_SAFE_POINT)
                continue;
            if (status == LEAKLINE_REMOTE_DONE && !save(thread)) {
                leakline_thread_release(thread);
                return LEAKLINE_REMOTE_FAILED;
            }
            return status;
        }
        nanosleep(&pause, NULL);
    } while (leakline_now_ns() < until);
    return LEAKLINE_REMOTE_NO_SAFE_POINT;
}

bool leakline_thread_release(struct leakline_thread *thread) {
    /* A signal came meanwhile whose handler is to run: the call would have ended because of it. */
    if (thread->rewound && leakline_never_restarted(thread->system_call) &&
        leakline_signal_waits(thread->pid, thread->tid, thread->mask))
        leakline_unwind_with(&thread->saved, -EINTR);
    else if (thread->ends_at_ns) {
        uint64_t now = leakline_now_ns();
        leakline_set_fourth_argument(&thread->saved, thread->ends_at_ns > now ? (thread->ends_at_ns - now + 999999) / 1000000 : 0);
    }
    if (thread->floating_size)
        leakline_regset_set(thread->tid, thread->floating_set, thread->floating, thread->floating_size);
    bool there = leakline_regset_set(thread->tid, NT_PRSTATUS, &thread->saved, sizeof thread->saved);
    if (thread->masked)
        ptrace(PTRACE_SETSIGMASK, thread->tid, (void *)sizeof thread->mask, &thread->mask);
    return detach(thread, thread->signal) && there;
}
