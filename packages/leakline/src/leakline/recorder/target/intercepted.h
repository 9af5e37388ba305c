/* The only list of functions that the recorder intercepts; docs/recorder-calls.md is made from it.
 *
 * Each group is an X-macro of functions that one wrapper serves; its comment says what is recorded (for the documentation) and what a row
 * holds. A row's first column is the function's name. Its parameters are used in the other columns. Prototypes
 * are here and not in libc's headers, as a function may be newer than the libc that this is built with.
 *
 * glibc calls its own functions directly, not through the import table: fopen() never reaches open(). So each of libc's functions that
 * makes or closes a descriptor has its row. Not here, as they make none and close none: fdopen, fdopendir (the stream closes later what
 * already has an origin), fcloseall (flushes only), openlog, syslog (their number is not told), fts, ftw, glob, getaddrinfo and
 * the like (close what they opened). Nor dlopen: it searches by the RUNPATH of its caller, which would be the recorder.
 */
#ifndef LEAKLINE_INTERCEPTED_H
#define LEAKLINE_INTERCEPTED_H

/* Make one descriptor, their result.
 * X(name, parameters, arguments, how it came, the descriptor that it came from or -1, when it is a new one) */
#define LEAKLINE_OPENERS(X)                                                                                                        \
    X(creat, (const char *path, mode_t mode), (path, mode), OPENED, -1, 1)                                                         \
    X(creat64, (const char *path, mode_t mode), (path, mode), OPENED, -1, 1)                                                       \
    X(__open_2, (const char *path, int flags), (path, flags), OPENED, -1, 1)                                                       \
    X(__open64_2, (const char *path, int flags), (path, flags), OPENED, -1, 1)                                                     \
    X(__openat_2, (int folder, const char *path, int flags), (folder, path, flags), OPENED, -1, 1)                                 \
    X(__openat64_2, (int folder, const char *path, int flags), (folder, path, flags), OPENED, -1, 1)                               \
    X(open_by_handle_at, (int mount, struct file_handle *handle, int flags), (mount, handle, flags), OPENED, -1, 1)                \
    X(mkstemp, (char *path), (path), OPENED, -1, 1)                                                                                \
    X(mkstemp64, (char *path), (path), OPENED, -1, 1)                                                                              \
    X(mkostemp, (char *path, int flags), (path, flags), OPENED, -1, 1)                                                             \
    X(mkostemp64, (char *path, int flags), (path, flags), OPENED, -1, 1)                                                           \
    X(mkstemps, (char *path, int suffix), (path, suffix), OPENED, -1, 1)                                                           \
    X(mkstemps64, (char *path, int suffix), (path, suffix), OPENED, -1, 1)                                                         \
    X(mkostemps, (char *path, int suffix, int flags), (path, suffix, flags), OPENED, -1, 1)                                        \
    X(mkostemps64, (char *path, int suffix, int flags), (path, suffix, flags), OPENED, -1, 1)                                      \
    X(shm_open, (const char *name, int flags, mode_t mode), (name, flags, mode), OPENED, -1, 1)                                    \
    X(__mq_open_2, (const char *name, int flags), (name, flags), OPENED, -1, 1)                                                    \
    X(memfd_create, (const char *name, unsigned flags), (name, flags), OPENED, -1, 1)                                              \
    X(posix_openpt, (int flags), (flags), OPENED, -1, 1)                                                                           \
    X(getpt, (void), (), OPENED, -1, 1)                                                                                            \
    X(socket, (int domain, int type, int protocol), (domain, type, protocol), OPENED, -1, 1)                                       \
    X(accept, (int listener, struct sockaddr * address, socklen_t *length), (listener, address, length), ACCEPTED, listener, 1)    \
    X(accept4, (int listener, struct sockaddr * address, socklen_t *length, int flags), (listener, address, length, flags),        \
      ACCEPTED, listener, 1)                                                                                                       \
    X(dup, (int original), (original), DUPLICATED, original, 1)                                                                    \
    X(eventfd, (unsigned initial, int flags), (initial, flags), OPENED, -1, 1)                                                     \
    X(epoll_create, (int size), (size), OPENED, -1, 1)                                                                             \
    X(epoll_create1, (int flags), (flags), OPENED, -1, 1)                                                                          \
    X(inotify_init, (void), (), OPENED, -1, 1)                                                                                     \
    X(inotify_init1, (int flags), (flags), OPENED, -1, 1)                                                                          \
    X(fanotify_init, (unsigned flags, unsigned event_flags), (flags, event_flags), OPENED, -1, 1)                                  \
    X(timerfd_create, (int clock, int flags), (clock, flags), OPENED, -1, 1)                                                       \
    X(signalfd, (int number, const sigset_t *mask, int flags), (number, mask, flags), OPENED, -1, number == -1)                    \
    X(pidfd_open, (pid_t pid, unsigned flags), (pid, flags), OPENED, -1, 1)                                                        \
    X(pidfd_getfd, (int pidfd, int number, unsigned flags), (pidfd, number, flags), RECEIVED, -1, 1)                               \
    X(fsopen, (const char *type, unsigned flags), (type, flags), OPENED, -1, 1)                                                    \
    X(fspick, (int folder, const char *path, unsigned flags), (folder, path, flags), OPENED, -1, 1)                                \
    X(fsmount, (int filesystem, unsigned flags, unsigned attributes), (filesystem, flags, attributes), OPENED, -1, 1)              \
    X(open_tree, (int folder, const char *path, unsigned flags), (folder, path, flags), OPENED, -1, 1)

/* Make one descriptor, their result; a mode is passed only where a file may be created.
 * X(name, the parameters before the mode, arguments) */
#define LEAKLINE_OPENERS_WITH_MODE(X)                                                                                              \
    X(open, (const char *path, int flags, ...), (path, flags, mode))                                                               \
    X(open64, (const char *path, int flags, ...), (path, flags, mode))                                                             \
    X(__open, (const char *path, int flags, ...), (path, flags, mode))                                                             \
    X(__open64, (const char *path, int flags, ...), (path, flags, mode))                                                           \
    X(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))                                         \
    X(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

/* Make two descriptors.
 * X(name, parameters, arguments, the first, the second) */
#define LEAKLINE_PAIR_OPENERS(X)                                                                                                   \
    X(pipe, (int ends[2]), (ends), ends[0], ends[1])                                                                               \
    X(__pipe, (int ends[2]), (ends), ends[0], ends[1])                                                                             \
    X(pipe2, (int ends[2], int flags), (ends, flags), ends[0], ends[1])                                                            \
    X(socketpair, (int domain, int type, int protocol, int ends[2]), (domain, type, protocol, ends), ends[0], ends[1])             \
    X(openpty, (int *master, int *slave, char *name, const struct termios *settings, const struct winsize *size),                  \
      (master, slave, name, settings, size), *master, *slave)

/* Make a stream over a new descriptor.
 * X(name, type of the stream, parameters, arguments, number of the stream's descriptor) */
#define LEAKLINE_STREAM_OPENERS(X)                                                                                                 \
    X(fopen, FILE, (const char *path, const char *mode), (path, mode), fileno)                                                     \
    X(fopen64, FILE, (const char *path, const char *mode), (path, mode), fileno)                                                   \
    X(_IO_fopen, FILE, (const char *path, const char *mode), (path, mode), fileno)                                                 \
    X(tmpfile, FILE, (void), (), fileno)                                                                                           \
    X(tmpfile64, FILE, (void), (), fileno)                                                                                         \
    X(popen, FILE, (const char *command, const char *mode), (leakline_shell_command(command), mode), fileno)                       \
    X(_IO_popen, FILE, (const char *command, const char *mode), (leakline_shell_command(command), mode), fileno)                   \
    X(opendir, DIR, (const char *path), (path), dirfd)

/* Close a stream's descriptor and open another, usually under the same number.
 * X(name) */
#define LEAKLINE_STREAM_REOPENERS(X)                                                                                               \
    X(freopen)                                                                                                                     \
    X(freopen64)

/* Make a number a copy of a descriptor; what was open under that number is closed.
 * X(name, parameters, arguments) */
#define LEAKLINE_REPLACERS(X)                                                                                                      \
    X(dup2, (int original, int number), (original, number))                                                                        \
    X(__dup2, (int original, int number), (original, number))                                                                      \
    X(dup3, (int original, int number, int flags), (original, number, flags))

/* Make a copy of a descriptor with F_DUPFD and F_DUPFD_CLOEXEC.
 * X(name) */
#define LEAKLINE_CONTROLS(X)                                                                                                       \
    X(fcntl)                                                                                                                       \
    X(fcntl64)                                                                                                                     \
    X(__fcntl)

/* Close one descriptor.
 * X(name, parameters, arguments, the descriptor, whether an EBADF can have another reason) */
#define LEAKLINE_CLOSERS(X)                                                                                                        \
    X(close, (int number), (number), number, false)                                                                                \
    X(__close, (int number), (number), number, false)                                                                              \
    X(mq_close, (int number), (number), number, false)                                                                             \
    X(fclose, (FILE * stream), (stream), leakline_number_of(stream), true)                                                         \
    X(_IO_fclose, (FILE * stream), (stream), leakline_number_of(stream), true)                                                     \
    X(pclose, (FILE * stream), (stream), leakline_number_of(stream), true)                                                         \
    X(closedir, (DIR * folder), (folder), folder ? dirfd(folder) : -1, false)

/* Keep the errno of a failure with the socket.
 * X(name, parameters, arguments) */
#define LEAKLINE_SOCKET_CALLS(X)                                                                                                   \
    X(bind, (int number, const struct sockaddr *address, socklen_t length), (number, address, length))                             \
    X(connect, (int number, const struct sockaddr *address, socklen_t length), (number, address, length))                          \
    X(__connect, (int number, const struct sockaddr *address, socklen_t length), (number, address, length))

/* Each has a wrapper of its own.
 * X(name, what it records) */
#define LEAKLINE_OTHERS(X)                                                                                                         \
    X(mq_open, "makes one descriptor")                                                                                             \
    X(recvmsg, "receives descriptors by SCM_RIGHTS")                                                                               \
    X(recvmmsg, "receives descriptors by SCM_RIGHTS")                                                                              \
    X(close_range, "closes many; none with CLOSE_RANGE_CLOEXEC")                                                                   \
    X(closefrom, "closes many")                                                                                                    \
    X(ioctl, "makes one descriptor with the requests below")                                                                       \
    X(syscall, "as the function of that name: the calls below, and close, close_range, dup2, dup3, fcntl, pipe, recvmsg …")        \
    X(forkpty, "makes one descriptor in the parent; in the child 0, 1 and 2 become the terminal")                                  \
    X(login_tty, "makes 0, 1 and 2 copies, closes the original")                                                                   \
    X(daemon, "0, 1 and 2 become /dev/null")                                                                                       \
    X(unshare, "with CLONE_FILES: the thread has its own descriptors from then on, which are not recorded")                        \
    X(clone, "makes one descriptor with CLONE_PIDFD; nothing is recorded in a child that has the parent's memory")                 \
    X(__clone, "makes one descriptor with CLONE_PIDFD; nothing is recorded in a child that has the parent's memory")               \
    X(prctl, "with PR_SET_SECCOMP: the recorder, too, makes no system call from then on")                                          \
    X(vfork, "nothing is recorded in the child, which has the parent's memory")                                                    \
    X(__vfork, "nothing is recorded in the child, which has the parent's memory")

/* Requests of ioctl() that make a descriptor, their result.
 * X(name, request) */
#define LEAKLINE_REQUESTS(X)                                                                                                       \
    X(TIOCGPTPEER, _IO('T', 0x41))                                                                                                 \
    X(NS_GET_USERNS, _IO(0xb7, 1))                                                                                                 \
    X(NS_GET_PARENT, _IO(0xb7, 2))                                                                                                 \
    X(SIOCGSKNS, 0x894c)                                                                                                           \
    X(KVM_CREATE_VM, _IO(0xae, 0x01))                                                                                              \
    X(KVM_CREATE_VCPU, _IO(0xae, 0x41))

/* Calls of syscall() that make one descriptor, their result.
 * X(name, how it came, the descriptor that it came from or -1, when it is a new one) */
#define LEAKLINE_SYSTEM_CALLS(X)                                                                                                   \
    X(open, OPENED, -1, true)                                                                                                      \
    X(openat, OPENED, -1, true)                                                                                                    \
    X(openat2, OPENED, -1, true)                                                                                                   \
    X(creat, OPENED, -1, true)                                                                                                     \
    X(open_by_handle_at, OPENED, -1, true)                                                                                         \
    X(open_tree, OPENED, -1, true)                                                                                                 \
    X(open_tree_attr, OPENED, -1, true)                                                                                            \
    X(fsopen, OPENED, -1, true)                                                                                                    \
    X(fspick, OPENED, -1, true)                                                                                                    \
    X(fsmount, OPENED, -1, true)                                                                                                   \
    X(socket, OPENED, -1, true)                                                                                                    \
    X(accept, ACCEPTED, (int)a, true)                                                                                              \
    X(accept4, ACCEPTED, (int)a, true)                                                                                             \
    X(dup, DUPLICATED, (int)a, true)                                                                                               \
    X(fcntl, DUPLICATED, (int)a, (int)b == F_DUPFD || (int)b == F_DUPFD_CLOEXEC)                                                   \
    X(eventfd, OPENED, -1, true)                                                                                                   \
    X(eventfd2, OPENED, -1, true)                                                                                                  \
    X(epoll_create, OPENED, -1, true)                                                                                              \
    X(epoll_create1, OPENED, -1, true)                                                                                             \
    X(inotify_init, OPENED, -1, true)                                                                                              \
    X(inotify_init1, OPENED, -1, true)                                                                                             \
    X(fanotify_init, OPENED, -1, true)                                                                                             \
    X(timerfd_create, OPENED, -1, true)                                                                                            \
    X(signalfd, OPENED, -1, (int)a == -1)                                                                                          \
    X(signalfd4, OPENED, -1, (int)a == -1)                                                                                         \
    X(memfd_create, OPENED, -1, true)                                                                                              \
    X(memfd_secret, OPENED, -1, true)                                                                                              \
    X(pidfd_open, OPENED, -1, true)                                                                                                \
    X(pidfd_getfd, RECEIVED, -1, true)                                                                                             \
    X(mq_open, OPENED, -1, true)                                                                                                   \
    X(userfaultfd, OPENED, -1, true)                                                                                               \
    X(perf_event_open, OPENED, -1, true)                                                                                           \
    X(io_uring_setup, OPENED, -1, true)                                                                                            \
    X(landlock_create_ruleset, OPENED, -1, (c & 3) == 0)                                                                           \
    X(seccomp, OPENED, -1, a == 1 && (b & 8) != 0)                                                                                 \
    X(bpf, OPENED, -1, leakline_bpf_opens((int)a))                                                                                 \
    X(ioctl, OPENED, -1, leakline_request_opens((unsigned long)b))

/* Start a program: where it is to be recorded too, its environment says so. (`system`, and `popen` above, start a shell that
 * says so to what it starts, but is not recorded itself.)
 * X(name) */
#define LEAKLINE_STARTERS(X)                                                                                                       \
    X(execve)                                                                                                                      \
    X(execv)                                                                                                                       \
    X(execvp)                                                                                                                      \
    X(execvpe)                                                                                                                     \
    X(execl)                                                                                                                       \
    X(execlp)                                                                                                                      \
    X(execle)                                                                                                                      \
    X(fexecve)                                                                                                                     \
    X(execveat)                                                                                                                    \
    X(posix_spawn)                                                                                                                 \
    X(posix_spawnp)                                                                                                                \
    X(system)

#define LEAKLINE_INTERCEPTED(X)                                                                                                    \
    LEAKLINE_OPENERS(X)                                                                                                            \
    LEAKLINE_OPENERS_WITH_MODE(X)                                                                                                  \
    LEAKLINE_PAIR_OPENERS(X)                                                                                                       \
    LEAKLINE_STREAM_OPENERS(X)                                                                                                     \
    LEAKLINE_STREAM_REOPENERS(X)                                                                                                   \
    LEAKLINE_REPLACERS(X)                                                                                                          \
    LEAKLINE_CONTROLS(X)                                                                                                           \
    LEAKLINE_CLOSERS(X)                                                                                                            \
    LEAKLINE_SOCKET_CALLS(X)                                                                                                       \
    LEAKLINE_OTHERS(X)                                                                                                             \
    LEAKLINE_STARTERS(X)

/* Number of an intercepted function, as the recording keeps it. 0: none. */
#define LEAKLINE_NUMBER(name, ...) LEAKLINE_FUNCTION_##name,
enum leakline_function { LEAKLINE_FUNCTION_NONE, LEAKLINE_INTERCEPTED(LEAKLINE_NUMBER) LEAKLINE_FUNCTION_END };
#undef LEAKLINE_NUMBER

#endif
