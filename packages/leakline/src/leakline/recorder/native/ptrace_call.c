/* The calls made in one stop of a thread of another process, and the child process that makes them. */
#define _GNU_SOURCE
#include "ptrace_call.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ptrace_thread.h"

static bool put(const struct leakline_thread *thread, uint64_t address, const void *data, size_t size) {
    return pwrite(thread->memory, data, size, (off_t)address) == (ssize_t)size;
}

static bool get(const struct leakline_thread *thread, uint64_t address, void *data, size_t size) {
    return pread(thread->memory, data, size, (off_t)address) == (ssize_t)size;
}

/* A copy of a text of the target, cut at the end of what can be read. */
static void get_text(const struct leakline_thread *thread, uint64_t address, char *text, size_t room) {
    size_t length = 0;
    while (length + 1 < room && get(thread, address + length, text + length, 1) && text[length])
        length++;
    text[length] = '\0';
}

static bool read_registers(const struct leakline_thread *thread, leakline_user_registers *registers) {
    size_t size = sizeof *registers;
    return leakline_regset_get(thread->tid, NT_PRSTATUS, registers, &size);
}

/* A signal that the thread did to itself, not one that somebody sent. */
static bool own_fault(const struct leakline_thread *thread) {
    siginfo_t info;
    return ptrace(PTRACE_GETSIGINFO, thread->tid, NULL, &info) == 0 && info.si_code > 0;
}

/* Lets the thread run until the call has returned to address 0. */
static int finish_call(struct leakline_thread *thread, struct leakline_remote *remote, int64_t *result) {
    uint64_t until = leakline_now_ns() + remote->call_limit_ms * UINT64_C(1000000);
    bool too_long = false;
    for (;;) {
        leakline_user_registers registers;
        if (ptrace(PTRACE_CONT, thread->tid, NULL, NULL) != 0)
            return LEAKLINE_REMOTE_GONE;
        int status = leakline_thread_wait(thread, until);
        if (status == 0 && !too_long) { /* it waits for a lock that does not come free: the call is given up */
            too_long = true;
            until += 1000000000u;
            if (ptrace(PTRACE_INTERRUPT, thread->tid, NULL, NULL) == 0)
                status = leakline_thread_wait(thread, until);
        }
        if (status <= 0)
            return status == 0 ? LEAKLINE_REMOTE_FAILED : LEAKLINE_REMOTE_GONE;
        int signal = WSTOPSIG(status);
        if (signal == SIGSEGV && read_registers(thread, &registers) && leakline_pc(&registers) == 0) {
            *result = leakline_result(&registers);
            return LEAKLINE_REMOTE_DONE;
        }
        if (too_long)
            return LEAKLINE_REMOTE_TOO_LONG;
        if (status >> 16 != 0)
            continue; /* the process is being stopped: after our call */
        if (signal != SIGSTOP && own_fault(thread) && read_registers(thread, &registers)) {
            remote->error = signal;
            remote->result = (int64_t)leakline_pc(&registers);
            return LEAKLINE_REMOTE_CRASHED;
        }
        thread->signal = signal;
    }
}

/* Calls function(text or NULL, second) in the stopped thread. */
static int call(struct leakline_thread *thread, struct leakline_remote *remote, uint64_t function, const char *text, uint64_t second,
                int64_t *result) {
    leakline_user_registers registers = thread->saved;
    uint64_t place = 0, zero = 0, sp = (leakline_sp(&thread->saved) - LEAKLINE_RED_ZONE - 64) & ~UINT64_C(15);
    if (text) {
        size_t size = strlen(text) + 1;
        sp = place = (sp - size) & ~UINT64_C(15);
        if (!put(thread, place, text, size)) {
            remote->error = errno;
            return LEAKLINE_REMOTE_FAILED;
        }
    }
    leakline_set_call(&registers, function, place, second, sp);
    if (!put(thread, sp - sizeof zero, &zero, sizeof zero) ||
        !leakline_regset_set(thread->tid, NT_PRSTATUS, &registers, sizeof registers)) {
        remote->error = errno;
        return LEAKLINE_REMOTE_FAILED;
    }
    return finish_call(thread, remote, result);
}

/* dlopen, and why not if it fails. `function` becomes an address. */
static int open_library(struct leakline_thread *thread, struct leakline_remote *remote) {
    int64_t handle = 0, text = 0;
    int status = call(thread, remote, remote->open_function, remote->library, remote->open_mode, &handle);
    if (status != LEAKLINE_REMOTE_DONE)
        return status;
    if (handle == 0) {
        if (remote->error_function && call(thread, remote, remote->error_function, NULL, 0, &text) == LEAKLINE_REMOTE_DONE && text)
            get_text(thread, (uint64_t)text, remote->message, sizeof remote->message);
        return LEAKLINE_REMOTE_NOT_LOADED;
    }
    uint64_t base; /* a handle is a struct link_map, whose first member is the load address */
    if (!get(thread, (uint64_t)handle, &base, sizeof base)) {
        remote->error = errno;
        return LEAKLINE_REMOTE_FAILED;
    }
    remote->handle = (uint64_t)handle;
    remote->function += base;
    return LEAKLINE_REMOTE_DONE;
}

/* All calls, with the thread's errno kept: the program may be about to look at it. */
static int make_calls(struct leakline_thread *thread, struct leakline_remote *remote) {
    int64_t errno_at = 0, result = 0;
    int value = 0;
    bool kept = false;
    int status = LEAKLINE_REMOTE_DONE;
    if (remote->errno_location) {
        status = call(thread, remote, remote->errno_location, NULL, 0, &errno_at);
        kept = status == LEAKLINE_REMOTE_DONE && get(thread, (uint64_t)errno_at, &value, sizeof value);
    }
    if (status == LEAKLINE_REMOTE_DONE && remote->open_function)
        status = open_library(thread, remote);
    if (status == LEAKLINE_REMOTE_DONE && remote->function)
        status = call(thread, remote, remote->function, remote->has_argument ? remote->argument : NULL, 0, &result);
    if (status == LEAKLINE_REMOTE_DONE)
        remote->result = result;
    if (kept)
        put(thread, (uint64_t)errno_at, &value, sizeof value);
    return status;
}

static int run(struct leakline_remote *remote) {
    static struct leakline_thread thread;
    char path[64];
    thread.pid = remote->pid;
    snprintf(path, sizeof path, "/proc/%d/mem", remote->pid);
    thread.memory = open(path, O_RDWR | O_CLOEXEC);
    if (thread.memory < 0) {
        remote->error = errno;
        return errno == ENOENT || errno == ESRCH ? LEAKLINE_REMOTE_GONE : LEAKLINE_REMOTE_REFUSED;
    }
    int status = leakline_thread_stop(&thread, remote);
    if (status != LEAKLINE_REMOTE_DONE) {
        if (!remote->error)
            remote->error = errno;
        return status;
    }
    remote->tid = thread.tid;
    remote->system_call = (int32_t)thread.system_call;
    remote->entered = thread.entered;
    status = make_calls(&thread, remote);
    if (!leakline_thread_release(&thread) && status == LEAKLINE_REMOTE_DONE)
        status = LEAKLINE_REMOTE_GONE;
    remote->stopped_ns = leakline_now_ns() - thread.stopped_at_ns;
    uint64_t waited_ns = leakline_waited_ns(thread.pid, thread.tid);
    remote->waited_ns = waited_ns > thread.waited_before_ns ? waited_ns - thread.waited_before_ns : 0;
    return status;
}

/* In the child: nothing that a signal or the end of leakline's terminal could interrupt. */
static void run_apart(struct leakline_remote *remote) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    signal(SIGCHLD, SIG_DFL);
    setsid();
    prctl(PR_SET_NAME, "leakline-attach");
    setpriority(PRIO_PROCESS, 0, -20); /* where permitted: the target's thread stands still while we wait for a processor */
    remote->status = run(remote);
}

int leakline_remote_run(struct leakline_remote *remote) {
    struct leakline_remote *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        remote->error = errno;
        return remote->status = LEAKLINE_REMOTE_FAILED;
    }
    *shared = *remote;
    shared->status = LEAKLINE_REMOTE_UNFINISHED;
    pid_t child = fork();
    if (child == 0) {
        run_apart(shared);
        _exit(0);
    }
    int error = errno, status;
    if (child > 0)
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    *remote = *shared;
    munmap(shared, sizeof *shared);
    if (child < 0) {
        remote->error = error;
        remote->status = LEAKLINE_REMOTE_FAILED;
    }
    return remote->status;
}
