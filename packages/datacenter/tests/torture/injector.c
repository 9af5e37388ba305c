/* An LD_PRELOAD library that fails the Nth descriptor-creating call of a process: once, or from the Nth on for good.
 *
 * It is steered through a file that TORTURE_CONTROL names, mapped shared by the process under torture and by whoever tortures it
 * (control.py has the same layout): calls count, and fail, only while `armed` is the process's id. So a process can be tortured
 * from any moment on, by itself or from outside, and never at its interpreter's start.
 *
 * What it cannot see: calls that glibc makes inside (getaddrinfo's sockets, dlopen's files, getifaddrs' netlink socket). The last
 * matters, since libzmq asserts on it: so getifaddrs as a whole counts as such a call, and fails as glibc's does.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { RECORDS = 1024, NAME = 16, WHERE = 48 };

struct record {
    char name[NAME];
    char where[WHERE]; /* the library that called; for files, the end of the path */
};

struct control {
    _Atomic uint32_t armed; /* the process whose calls count; 0: nobody's */
    _Atomic uint32_t calls;
    uint32_t fail_at; /* 1: the first; 0: none */
    uint32_t for_good;
    uint32_t error;
    _Atomic uint32_t failed;
    struct record records[RECORDS];
};

static struct control *control;

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("TORTURE_CONTROL");
    if (!path)
        return;
    int number = open(path, O_RDWR | O_CLOEXEC);
    if (number < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0);
    close(number);
    if (mapped != MAP_FAILED)
        control = mapped;
}

static void note(struct record *record, const char *name, const char *what, const void *caller) {
    Dl_info found;
    if (!what && dladdr(caller, &found) && found.dli_fname)
        what = found.dli_fname;
    if (!what)
        what = "?";
    const char *slash = strrchr(what, '/');
    size_t length = strlen(what);
    const char *tail = slash && slash[1] ? slash + 1 : length < WHERE ? what : what + length - WHERE + 1;
    snprintf(record->name, NAME, "%s", name);
    snprintf(record->where, WHERE, "%.*s", WHERE - 1, tail);
}

/* Counts a call; true, with errno set, if it is to fail. */
static bool fails(const char *name, const char *what, const void *caller) {
    if (!control || atomic_load(&control->armed) != (uint32_t)getpid())
        return false;
    int before = errno;
    uint32_t number = atomic_fetch_add(&control->calls, 1) + 1;
    if (number <= RECORDS)
        note(&control->records[number - 1], name, what, caller);
    errno = before;
    if (control->fail_at == 0 || number < control->fail_at || (number > control->fail_at && !control->for_good))
        return false;
    atomic_fetch_add(&control->failed, 1);
    errno = (int)control->error;
    return true;
}

#define CALLER __builtin_return_address(0)

/* X(result, on failure, name, parameters, arguments, the path or NULL) */
#define SIMPLE(X)                                                                                                                  \
    X(int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol), NULL)                                       \
    X(int, -1, accept, (int listener, struct sockaddr *address, socklen_t *length), (listener, address, length), NULL)             \
    X(int, -1, accept4, (int listener, struct sockaddr *address, socklen_t *length, int flags),                                    \
      (listener, address, length, flags), NULL)                                                                                    \
    X(int, -1, socketpair, (int domain, int type, int protocol, int ends[2]), (domain, type, protocol, ends), NULL)                \
    X(int, -1, eventfd, (unsigned int initial, int flags), (initial, flags), NULL)                                                 \
    X(int, -1, epoll_create, (int size), (size), NULL)                                                                             \
    X(int, -1, epoll_create1, (int flags), (flags), NULL)                                                                          \
    X(int, -1, pipe, (int ends[2]), (ends), NULL)                                                                                  \
    X(int, -1, pipe2, (int ends[2], int flags), (ends, flags), NULL)                                                               \
    X(int, -1, dup, (int original), (original), NULL)                                                                              \
    X(int, -1, dup2, (int original, int number), (original, number), NULL)                                                         \
    X(int, -1, dup3, (int original, int number, int flags), (original, number, flags), NULL)                                       \
    X(int, -1, timerfd_create, (clockid_t clock, int flags), (clock, flags), NULL)                                                 \
    X(int, -1, inotify_init, (void), (), NULL)                                                                                     \
    X(int, -1, inotify_init1, (int flags), (flags), NULL)                                                                          \
    X(int, -1, memfd_create, (const char *label, unsigned int flags), (label, flags), label)                                       \
    X(int, -1, signalfd, (int number, const sigset_t *mask, int flags), (number, mask, flags), NULL)                               \
    X(int, -1, getifaddrs, (struct ifaddrs **list), (list), NULL)                                                                  \
    X(FILE *, NULL, fopen, (const char *path, const char *mode), (path, mode), path)                                               \
    X(FILE *, NULL, fopen64, (const char *path, const char *mode), (path, mode), path)                                             \
    X(DIR *, NULL, opendir, (const char *path), (path), path)                                                                      \
    X(int, -1, __open_2, (const char *path, int flags), (path, flags), path)                                                       \
    X(int, -1, __open64_2, (const char *path, int flags), (path, flags), path)                                                     \
    X(int, -1, __openat_2, (int folder, const char *path, int flags), (folder, path, flags), path)                                 \
    X(int, -1, __openat64_2, (int folder, const char *path, int flags), (folder, path, flags), path)

#define DEFINE(result, failure, name, parameters, arguments, path)                                                                 \
    result name parameters;                                                                                                        \
    result name parameters {                                                                                                       \
        static result(*real) parameters;                                                                                           \
        if (!real)                                                                                                                 \
            real = (result(*) parameters)next(#name);                                                                              \
        if (fails(#name, path, CALLER))                                                                                            \
            return failure;                                                                                                        \
        return real arguments;                                                                                                     \
    }
SIMPLE(DEFINE)
#undef DEFINE

/* The mode is there only with O_CREAT or O_TMPFILE. */
#define DEFINE(name, parameters, arguments)                                                                                        \
    int name parameters {                                                                                                          \
        static int(*real) parameters;                                                                                              \
        if (!real)                                                                                                                 \
            real = (int(*) parameters)next(#name);                                                                                 \
        mode_t mode = 0;                                                                                                           \
        if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {                                                               \
            va_list list;                                                                                                          \
            va_start(list, flags);                                                                                                 \
            mode = va_arg(list, mode_t);                                                                                           \
            va_end(list);                                                                                                          \
        }                                                                                                                          \
        if (fails(#name, path, CALLER))                                                                                            \
            return -1;                                                                                                             \
        return real arguments;                                                                                                     \
    }
DEFINE(open, (const char *path, int flags, ...), (path, flags, mode))
DEFINE(open64, (const char *path, int flags, ...), (path, flags, mode))
DEFINE(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
DEFINE(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
#undef DEFINE

#define DEFINE(name)                                                                                                               \
    int name(int number, int command, ...) {                                                                                       \
        static int (*real)(int, int, ...);                                                                                         \
        if (!real)                                                                                                                 \
            real = (int (*)(int, int, ...))next(#name);                                                                            \
        va_list list;                                                                                                              \
        va_start(list, command);                                                                                                   \
        void *argument = va_arg(list, void *);                                                                                     \
        va_end(list);                                                                                                              \
        if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && fails("F_DUPFD", NULL, CALLER))                                  \
            return -1;                                                                                                             \
        return real(number, command, argument);                                                                                    \
    }
DEFINE(fcntl)
DEFINE(fcntl64)
#undef DEFINE

static bool makes_descriptor(long number) {
    switch (number) {
    case SYS_openat:
    case SYS_eventfd2:
    case SYS_epoll_create1:
    case SYS_memfd_create:
    case SYS_pidfd_open:
    case SYS_socket:
    case SYS_io_uring_setup:
    case SYS_perf_event_open:
        return true;
    }
    return false;
}

long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))next("syscall");
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long),
         e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (makes_descriptor(number) && fails("syscall", NULL, CALLER))
        return -1;
    return real(number, a, b, c, d, e, f);
}
