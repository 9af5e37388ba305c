/* The functions that stand in a hooked library's import table. See descriptor_hooks.h. */
#define _GNU_SOURCE
#include "descriptor_hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "hooked_functions.h"

static struct leakline_table *target; /* under the lock */

void leakline_hook_target(struct leakline_table *table) {
    leakline_lock();
    target = table;
    leakline_unlock();
}

void leakline_hook_target_end(const struct leakline_table *table) {
    leakline_lock();
    if (target == table)
        target = NULL;
    leakline_unlock();
}

static uint32_t kind_of_socket(int domain, int type) {
    switch (domain) {
    case AF_UNIX:
        return LEAKLINE_KIND_UNIX;
    case AF_NETLINK:
        return LEAKLINE_KIND_NETLINK;
    case AF_INET:
    case AF_INET6:
        switch (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) {
        case SOCK_STREAM:
            return LEAKLINE_KIND_TCP;
        case SOCK_DGRAM:
            return LEAKLINE_KIND_UDP;
        }
    }
    return LEAKLINE_KIND_SOCKET;
}

static uint32_t kind_of_accepted(struct leakline_table *table, int listener) {
    uint32_t kind = leakline_recorded_kind(table, listener);
    int domain, type;
    socklen_t size = sizeof(int);
    if (kind == LEAKLINE_KIND_NONE && getsockopt(listener, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
        getsockopt(listener, SOL_SOCKET, SO_TYPE, &type, &size) == 0)
        kind = kind_of_socket(domain, type);
    return kind;
}

/* The lock is held over the call: hook only libraries whose descriptors do not block in accept or open (libzmq's do not). */
static struct leakline_table *begin(void) {
    leakline_lock();
    if (target)
        leakline_change_begin(target);
    return target;
}

static void end(struct leakline_table *table) {
    if (table)
        leakline_change_end(table);
    leakline_unlock();
}

static void opened(struct leakline_table *table, int number, uint32_t kind, enum leakline_source source) {
    if (table && number >= 0)
        leakline_record_opened(table, number, kind, leakline_owner_current(), source);
}

/* --- descriptors opened beforehand */

struct standby {
    unsigned count;
    int numbers[LEAKLINE_STANDBY];
};

static _Thread_local struct standby eventfds_kept, epolls_kept;

static struct standby *standby_of(uint32_t kind) { return kind == LEAKLINE_KIND_EVENTFD ? &eventfds_kept : &epolls_kept; }

#define LEAKLINE_DEFINE(name, parameters, arguments, kind, usual)                                                                  \
    static int open_##name parameters {                                                                                            \
        struct leakline_table *table = begin();                                                                                    \
        int number = name arguments;                                                                                               \
        int error = errno;                                                                                                         \
        opened(table, number, kind, LEAKLINE_OPENED);                                                                              \
        end(table);                                                                                                                \
        errno = error;                                                                                                             \
        return number;                                                                                                             \
    }                                                                                                                              \
    static int hook_##name parameters {                                                                                            \
        struct standby *kept = standby_of(kind);                                                                                   \
        return kept->count && (usual) ? kept->numbers[--kept->count] : open_##name arguments;                                      \
    }
LEAKLINE_STANDBY_OPENERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

static int hook_close(int number);

void leakline_standby_end(void) {
    int error = errno;
    while (eventfds_kept.count)
        hook_close(eventfds_kept.numbers[--eventfds_kept.count]);
    while (epolls_kept.count)
        hook_close(epolls_kept.numbers[--epolls_kept.count]);
    errno = error;
}

void leakline_standby_forget(void) { eventfds_kept.count = epolls_kept.count = 0; }

static bool keep(struct standby *kept, int number) {
    if (number >= 0)
        kept->numbers[kept->count++] = number;
    return number >= 0;
}

int leakline_standby_fill(unsigned eventfds, unsigned epolls) {
    leakline_standby_end();
    if (eventfds > LEAKLINE_STANDBY || epolls > LEAKLINE_STANDBY) {
        errno = EINVAL;
        return -1;
    }
    bool filled = true;
    while (filled && eventfds_kept.count < eventfds)
        filled = keep(&eventfds_kept, open_eventfd(0, EFD_CLOEXEC));
    while (filled && epolls_kept.count < epolls)
        filled = keep(&epolls_kept, open_epoll_create1(EPOLL_CLOEXEC));
    if (!filled)
        leakline_standby_end();
    return filled ? 0 : -1;
}

/* --- the hooks */

#define LEAKLINE_DEFINE(name, parameters, arguments, kind, source)                                                                 \
    static int hook_##name parameters {                                                                                            \
        struct leakline_table *table = begin();                                                                                    \
        int number = name arguments;                                                                                               \
        int error = errno;                                                                                                         \
        if (table)                                                                                                                 \
            opened(table, number, kind, source);                                                                                   \
        end(table);                                                                                                                \
        errno = error;                                                                                                             \
        return number;                                                                                                             \
    }
LEAKLINE_OPENERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

#define LEAKLINE_DEFINE(name, parameters, arguments, ends, kind)                                                                   \
    static int hook_##name parameters {                                                                                            \
        struct leakline_table *table = begin();                                                                                    \
        int result = name arguments;                                                                                               \
        int error = errno;                                                                                                         \
        for (int i = 0; result == 0 && i < 2; i++)                                                                                 \
            opened(table, ends[i], kind, LEAKLINE_OPENED);                                                                         \
        end(table);                                                                                                                \
        errno = error;                                                                                                             \
        return result;                                                                                                             \
    }
LEAKLINE_PAIR_OPENERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

static int open_with(int (*function)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    struct leakline_table *table = begin();
    int number = function(path, flags, mode);
    int error = errno;
    opened(table, number, LEAKLINE_KIND_FILE, LEAKLINE_OPENED);
    end(table);
    errno = error;
    return number;
}

/* The mode is there only with O_CREAT or O_TMPFILE. */
#define LEAKLINE_DEFINE(name)                                                                                                      \
    static int hook_##name(const char *path, int flags, ...) {                                                                     \
        mode_t mode = 0;                                                                                                           \
        if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {                                                               \
            va_list list;                                                                                                          \
            va_start(list, flags);                                                                                                 \
            mode = va_arg(list, mode_t);                                                                                           \
            va_end(list);                                                                                                          \
        }                                                                                                                          \
        return open_with(name, path, flags, mode);                                                                                 \
    }
LEAKLINE_DEFINE(open)
LEAKLINE_DEFINE(open64)
#undef LEAKLINE_DEFINE

/* The record goes first: once the number is free, any thread's next open may get it, and must not be taken for ours. */
static int hook_close(int number) {
    struct leakline_table *table = begin();
    if (table)
        leakline_record_closed(table, number);
    int result = close(number);
    int error = errno;
    end(table);
    errno = error;
    return result;
}

int leakline_socket(int domain, int type, int protocol) { return hook_socket(domain, type, protocol); }

int leakline_close(int number) { return hook_close(number); }

#define LEAKLINE_ROW(name, ...) {#name, (void *)hook_##name},
const struct leakline_hook leakline_hooks[] = {
    LEAKLINE_STANDBY_OPENERS(LEAKLINE_ROW) LEAKLINE_OPENERS(LEAKLINE_ROW) LEAKLINE_PAIR_OPENERS(LEAKLINE_ROW) LEAKLINE_OTHER_HOOKS(LEAKLINE_ROW)};
#undef LEAKLINE_ROW
const unsigned leakline_hook_count = sizeof leakline_hooks / sizeof *leakline_hooks;
