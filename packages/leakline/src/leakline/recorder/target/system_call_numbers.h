/* Numbers of the system calls of LEAKLINE_SYSTEM_CALLS (intercepted.h), also where the kernel's headers are older, or the machine has no such call. */
#ifndef LEAKLINE_SYSTEM_CALL_NUMBERS_H
#define LEAKLINE_SYSTEM_CALL_NUMBERS_H

#include <sys/syscall.h>

/* Not on aarch64: numbers that are nobody's. */
#ifndef SYS_open
#define SYS_open (-1001L)
#define SYS_creat (-1002L)
#define SYS_eventfd (-1003L)
#define SYS_epoll_create (-1004L)
#define SYS_inotify_init (-1005L)
#define SYS_signalfd (-1006L)
#define SYS_pipe (-1007L)
#define SYS_dup2 (-1008L)
#endif
/* The same on both machines. */
#ifndef SYS_open_tree
#define SYS_open_tree 428L
#define SYS_fsopen 430L
#define SYS_fsmount 432L
#define SYS_fspick 433L
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434L
#endif
#ifndef SYS_clone3
#define SYS_clone3 435L
#endif
#ifndef SYS_close_range
#define SYS_close_range 436L
#endif
#ifndef SYS_openat2
#define SYS_openat2 437L
#define SYS_pidfd_getfd 438L
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425L
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444L
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447L
#endif
#ifndef SYS_open_tree_attr
#define SYS_open_tree_attr 467L
#endif

#endif
