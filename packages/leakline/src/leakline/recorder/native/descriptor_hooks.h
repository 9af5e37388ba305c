/* What a hooked library calls in place of eventfd, socket, close and the others of hooked_functions.h.
 *
 * Each does the system call and the record under one lock, keeps errno, and allocates nothing. Without a target table it is the
 * plain call.
 */
#ifndef LEAKLINE_DESCRIPTOR_HOOKS_H
#define LEAKLINE_DESCRIPTOR_HOOKS_H

#include "descriptor_table.h"

struct leakline_hook {
    const char *name;
    void *function;
};

extern const struct leakline_hook leakline_hooks[];
extern const unsigned leakline_hook_count;

/* The table that hooks write to from now on; NULL for none. */
LEAKLINE_PUBLIC void leakline_hook_target(struct leakline_table *table);
/* No target any more, if it is this table. */
LEAKLINE_PUBLIC void leakline_hook_target_end(const struct leakline_table *table);

/* Descriptors opened beforehand: the next calls of eventfd(0, EFD_CLOEXEC) and epoll_create1(EPOLL_CLOEXEC) that a hooked library
 * makes in this thread are answered with them, and so cannot fail. For libraries that abort where they run out half-way: a check
 * in advance would leave a gap for other threads. They are recorded when they are opened, for the owner of that moment.
 *
 * fill: 0, or -1 with errno, and then nothing was opened (EINVAL: more than LEAKLINE_STANDBY of a sort).
 * end: closes what was not taken; the others are their takers'. */
#define LEAKLINE_STANDBY 8
LEAKLINE_PUBLIC int leakline_standby_fill(unsigned eventfds, unsigned epolls);
LEAKLINE_PUBLIC void leakline_standby_end(void);
/* In a forked child: the numbers were closed with the table, or are another thread's matter. */
void leakline_standby_forget(void);

/* The hooks of socket() and close(), for callers that hand a descriptor to a hooked library or take it back: call and record are one
 * step, also for a fork. */
LEAKLINE_PUBLIC int leakline_socket(int domain, int type, int protocol);
LEAKLINE_PUBLIC int leakline_close(int number);

#endif
