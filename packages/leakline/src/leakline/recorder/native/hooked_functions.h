/* The only list of functions that a library's imports are replaced for.
 *
 * LEAKLINE_STANDBY_OPENERS(X): X(name, parameters, arguments, kind, what the arguments are in a call that a standby may answer)
 * LEAKLINE_OPENERS(X): X(name, parameters, arguments, kind of the descriptor returned, how it came)
 * LEAKLINE_PAIR_OPENERS(X): X(name, parameters, arguments, the array of two, kind)
 * Their parameters are used in the kind's expression. `open`, `open64` and `close` are written out in descriptor_hooks.c.
 */
#ifndef LEAKLINE_HOOKED_FUNCTIONS_H
#define LEAKLINE_HOOKED_FUNCTIONS_H

#define LEAKLINE_STANDBY_OPENERS(X)                                                                                                \
    X(eventfd, (unsigned int initial, int flags), (initial, flags), LEAKLINE_KIND_EVENTFD, initial == 0 && flags == EFD_CLOEXEC)   \
    X(epoll_create1, (int flags), (flags), LEAKLINE_KIND_EPOLL, flags == EPOLL_CLOEXEC)

#define LEAKLINE_OPENERS(X)                                                                                                        \
    X(epoll_create, (int size), (size), LEAKLINE_KIND_EPOLL, LEAKLINE_OPENED)                                                      \
    X(timerfd_create, (int clock, int flags), (clock, flags), LEAKLINE_KIND_TIMERFD, LEAKLINE_OPENED)                              \
    X(inotify_init1, (int flags), (flags), LEAKLINE_KIND_INOTIFY, LEAKLINE_OPENED)                                                 \
    X(socket, (int domain, int type, int protocol), (domain, type, protocol), kind_of_socket(domain, type), LEAKLINE_OPENED)       \
    X(accept, (int listener, struct sockaddr *address, socklen_t *length), (listener, address, length),                            \
      kind_of_accepted(table, listener), LEAKLINE_ACCEPTED)                                                                  \
    X(accept4, (int listener, struct sockaddr *address, socklen_t *length, int flags), (listener, address, length, flags),         \
      kind_of_accepted(table, listener), LEAKLINE_ACCEPTED)                                                                  \
    X(dup, (int original), (original), leakline_recorded_kind(table, original), LEAKLINE_OPENED)

#define LEAKLINE_PAIR_OPENERS(X)                                                                                                   \
    X(pipe, (int ends[2]), (ends), ends, LEAKLINE_KIND_PIPE)                                                                       \
    X(pipe2, (int ends[2], int flags), (ends, flags), ends, LEAKLINE_KIND_PIPE)                                                    \
    X(socketpair, (int domain, int type, int protocol, int ends[2]), (domain, type, protocol, ends), ends,                         \
      kind_of_socket(domain, type))

#define LEAKLINE_OTHER_HOOKS(X)                                                                                                    \
    X(open)                                                                                                                        \
    X(open64)                                                                                                                      \
    X(close)

#endif
