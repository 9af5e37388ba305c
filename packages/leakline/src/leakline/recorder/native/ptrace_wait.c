/* What a thread of another process waits in, and whether functions may be called in it there: dlopen allocates and takes the loader's lock, so
 * the thread must be in neither malloc nor the loader. A thread that sleeps in poll, accept or nanosleep is not; one that sleeps in a
 * futex may be.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "file_status.h"
#include "ptrace_thread.h"
#include "old_names.h"

#define STACK_ROOM (64 * 1024) /* dlopen and the recorder's beginning take about 20 KB (measured), an open_path buffer included */

static bool in_range(const struct leakline_range *range, uint64_t address) {
    return address >= range->start && address < range->end;
}

/* Reads what one thread's file in /proc says, as a string; false when it is not there. */
static bool read_thread_file(pid_t pid, pid_t tid, const char *name, char *text, size_t room) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/%s", pid, tid, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t length = read(file, text, room - 1);
    close(file);
    text[length > 0 ? length : 0] = '\0';
    return length > 0;
}

/* A read of a file, even a slow one, may be the loader's or a locale's, under a lock; and it is not interrupted. */
static bool waits_for_another(pid_t pid, uint64_t number) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, (int)number);
    return leakline_stat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode) && !S_ISBLK(status.st_mode);
}

/* glibc waits with FUTEX_WAIT_BITSET for conditions, semaphores, joins and read-write locks (__futex_abstimed_wait_common), and
 * with FUTEX_WAIT for mutexes, among them those of malloc and of the loader (__lll_lock_wait). */
static enum leakline_wait futex_kind(const struct leakline_remote *remote, uint64_t operation, uint64_t pc) {
    if ((operation & FUTEX_CMD_MASK) != FUTEX_WAIT_BITSET)
        return LEAKLINE_WAIT_NO;
    for (uint32_t i = 0; i < remote->range_count && i < LEAKLINE_REMOTE_RANGES; i++)
        if (in_range(&remote->c_library[i], pc))
            return LEAKLINE_WAIT_FUTEX;
    return LEAKLINE_WAIT_NO;
}

enum leakline_wait leakline_wait_kind(const struct leakline_remote *remote, long number, const uint64_t arguments[6], uint64_t pc) {
    if (in_range(&remote->loader, pc))
        return LEAKLINE_WAIT_NO;
    switch (number) {
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
#endif
    case SYS_epoll_pwait:
        return (int)arguments[3] > 0 ? LEAKLINE_WAIT_TIMED : LEAKLINE_WAIT_EXACT;
    case 441: /* epoll_pwait2 */
        return arguments[3] ? LEAKLINE_WAIT_TIMED : LEAKLINE_WAIT_EXACT;
#ifdef SYS_poll
    case SYS_poll:
    case SYS_select:
    case SYS_pause:
#endif
    case SYS_ppoll:
    case SYS_pselect6:
    case SYS_accept:
    case SYS_accept4:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_wait4:
    case SYS_waitid:
    case SYS_rt_sigsuspend:
    case SYS_restart_syscall: /* poll, nanosleep or a futex with a timeout, after an interruption: the arguments are no longer known */
        return LEAKLINE_WAIT_EXACT;
    case SYS_rt_sigtimedwait:
        return arguments[2] ? LEAKLINE_WAIT_NO : LEAKLINE_WAIT_EXACT;
    case SYS_read:
    case SYS_readv:
        return waits_for_another(remote->pid, arguments[0]) ? LEAKLINE_WAIT_EXACT : LEAKLINE_WAIT_NO;
    case SYS_futex:
        return futex_kind(remote, arguments[1], pc);
    default:
        return LEAKLINE_WAIT_NO;
    }
}

struct leakline_waiting leakline_waiting(const struct leakline_remote *remote, pid_t tid) {
    struct leakline_waiting found = {.wait = LEAKLINE_WAIT_NO, .number = -1};
    char text[256];
    if (!read_thread_file(remote->pid, tid, "syscall", text, sizeof text))
        return found;
    if (strncmp(text, "running", 7) == 0) {
        found.wait = LEAKLINE_WAIT_RUNNING;
        return found;
    }
    unsigned long a[8];
    if (sscanf(text, "%ld %lx %lx %lx %lx %lx %lx %lx %lx", &found.number, &a[0], &a[1], &a[2], &a[3], &a[4], &a[5], &a[6], &a[7]) != 9)
        return found; /* "-1 …": stopped outside of a system call */
    for (int i = 0; i < 6; i++)
        found.arguments[i] = a[i];
    found.sp = a[6];
    found.pc = a[7];
    found.wait = leakline_wait_kind(remote, found.number, found.arguments, found.pc);
    return found;
}

/* In ms, of the clock of the processor that the thread last ran on: when it was last charged for time. */
static bool charged_at_ms(pid_t pid, pid_t tid, double *at) {
    char text[1024];
    if (!read_thread_file(pid, tid, "sched", text, sizeof text))
        return false;
    const char *line = strstr(text, "se.exec_start");
    const char *value = line ? strchr(line, ':') : NULL;
    if (!value)
        return false;
    *at = strtod(value + 1, NULL);
    return true;
}

/* Processors' clocks differ by what was stolen or spent in interrupts: we have to run on the one that the thread went to sleep on. */
uint64_t leakline_slept_ns(pid_t pid, pid_t tid) {
    char text[1024];
    double theirs, ours;
    cpu_set_t before, wanted;
    if (!read_thread_file(pid, tid, "stat", text, sizeof text))
        return 0;
    const char *field = strrchr(text, ')');
    for (int i = 2; field && i < 39; i++)
        field = strchr(field + 1, ' ');
    if (!field || sched_getaffinity(0, sizeof before, &before) != 0)
        return 0;
    CPU_ZERO(&wanted);
    CPU_SET(atoi(field + 1) & (CPU_SETSIZE - 1), &wanted);
    if (sched_setaffinity(0, sizeof wanted, &wanted) != 0)
        return 0;
    sched_yield(); /* charges us up to now */
    bool known = charged_at_ms(pid, tid, &theirs) && charged_at_ms(getpid(), getpid(), &ours);
    sched_setaffinity(0, sizeof before, &before);
    /* 0: it was moved to another processor while it slept. */
    return known && theirs > 0 && ours > theirs ? (uint64_t)((ours - theirs) * 1e6) : 0;
}

static uint64_t waited_ns(pid_t pid, pid_t tid) {
    char text[128];
    unsigned long long ran, waited;
    return read_thread_file(pid, tid, "schedstat", text, sizeof text) && sscanf(text, "%llu %llu", &ran, &waited) == 2 ? waited : 0;
}

uint64_t leakline_waited_ns(pid_t pid, pid_t tid) { return waited_ns(pid, tid) + waited_ns(getpid(), getpid()); }

bool leakline_stack_has_room(pid_t pid, uint64_t sp) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *file = fopen(path, "re");
    bool room = false;
    while (file && fgets(line, sizeof line, file)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx", &start, &end) != 2 || sp < start || sp >= end)
            continue;
        room = strstr(line, "[stack]") != NULL || sp - start >= STACK_ROOM; /* the main thread's grows */
        break;
    }
    if (file)
        fclose(file);
    return room;
}

bool leakline_signal_waits(pid_t pid, pid_t tid, uint64_t mask) {
    char text[4096];
    unsigned long long own = 0, shared = 0, caught = 0;
    if (!read_thread_file(pid, tid, "status", text, sizeof text))
        return false;
    const char *line = strstr(text, "\nSigPnd:");
    if (line)
        sscanf(line, "\nSigPnd: %llx\nShdPnd: %llx\n", &own, &shared);
    line = strstr(text, "\nSigCgt:");
    if (line)
        sscanf(line, "\nSigCgt: %llx", &caught);
    return ((own | shared) & caught & ~mask) != 0;
}

bool leakline_never_restarted(long number) {
    switch (number) {
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
    case SYS_poll:
    case SYS_select:
    case SYS_pause:
#endif
    case SYS_epoll_pwait:
    case 441: /* epoll_pwait2 */
    case SYS_ppoll:
    case SYS_pselect6:
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_rt_sigsuspend:
    case SYS_rt_sigtimedwait:
    case SYS_restart_syscall:
        return true;
    default:
        return false;
    }
}
