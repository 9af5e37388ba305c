/* Calls every intercepted function once, from a function and a line of its own, and leaves open what it opened.
 *
 * The calls are made in the order of intercepted.h and by its names: one without a case here does not compile, nor does a case without a call.
 * KEEP(how, call) opens a descriptor that stays open; ALSO(how, number) says so of a number. For each the program prints "case function line how
 * number", and "refused case errno" where this kernel has or allows no such call. Then it waits for its input to end.
 * A case is one line, as only its line is compared.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmp.h>

#include "intercepted.h"
#include "system_call_numbers.h"

#define CASE(name) static void case_##name(void)
#define SYSTEM_CALL(name) static void case_syscall_##name(void)
#define REQUEST(name) static void case_ioctl_##name(void)

int __open(const char *, int, ...), __open64(const char *, int, ...), __open_2(const char *, int), __open64_2(const char *, int);
int __openat_2(int, const char *, int), __openat64_2(int, const char *, int), __close(int), __dup2(int, int), __fcntl(int, int, ...);
int __pipe(int *), __connect(int, const struct sockaddr *, socklen_t), __mq_open_2(const char *, int), pidfd_open(pid_t, unsigned);
int __clone(int (*)(void *), void *, int, void *, ...);
FILE *_IO_fopen(const char *, const char *), *_IO_popen(const char *, const char *);
int _IO_fclose(FILE *), pidfd_getfd(int, int, unsigned);
pid_t __vfork(void);

static void failed(const char *name, int error) { printf("refused %s %d\n", name, error); }

/* Only this line is looked for in debug information: the call is an argument of it. */
static int keep(const char *name, int line, const char *how, int number) {
    if (number < 0)
        failed(name, errno);
    else
        printf("%s %d %s %d\n", name, line, how, number);
    return number;
}
#define KEEP(how, call) keep(__func__, __LINE__, how, call)
#define ALSO(how, number) keep(__func__, __LINE__, how, number)
#define DONE(call) do { if ((call) == -1) failed(__func__, errno); } while (0)
/* In a child, whose exit status is 0 if it did what it should. */
#define CHILD(body) do { pid_t child = fork(); if (child == 0) { body; _exit(99); } ended(__func__, child); } while (0)
static void ended(const char *name, pid_t child) {
    int status;
    waitpid(child, &status, 0);
    if (status)
        printf("child of %s: %d\n", name, status), exit(1);
}

/* By system calls of its own, which nobody intercepts, so that only the call that is tested is seen. */
static long raw(long number, long a, long b, long c, long d) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number, result __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
#endif
    return result;
}
/* A descriptor that is known to the recorder, by a call that has its own case. */
static int fresh(void) { return eventfd(0, EFD_CLOEXEC); }
static char *path(const char *format) {
    static char text[32][64];
    static int next;
    return strcpy(text[next++ % 32], format);
}
static struct sockaddr *listening(int *listener) {
    static struct sockaddr_in address;
    socklen_t size = sizeof address;
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    *listener = raw(SYS_socket, AF_INET, SOCK_STREAM, 0, 0);
    if (raw(SYS_bind, *listener, (long)&address, sizeof address, 0) || raw(SYS_listen, *listener, 5, 0, 0))
        abort();
    getsockname(*listener, (struct sockaddr *)&address, &size);
    int peer = raw(SYS_socket, AF_INET, SOCK_STREAM, 0, 0);
    raw(SYS_connect, peer, (long)&address, sizeof address, 0);
    return (struct sockaddr *)&address;
}
static int waiting(void) { int listener; listening(&listener); return listener; }
/* A socket with a message that carries two descriptors. */
static char control[256], byte[1];
static struct iovec vector = {byte, 1};
static struct msghdr message(void) { return (struct msghdr){.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control}; }
static int with_message(void) {
    int ends[2], passed[2] = {0, 1};
    raw(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, (long)ends);
    struct msghdr sent = message();
    sent.msg_controllen = CMSG_SPACE(sizeof passed);
    struct cmsghdr *header = CMSG_FIRSTHDR(&sent);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(header), passed, sizeof passed);
    if (sendmsg(ends[0], &sent, 0) != 1)
        abort();
    memset(control, 0, sizeof control);
    return ends[1];
}
static int passed(int index) { return ((int *)CMSG_DATA((struct cmsghdr *)control))[index]; }
static sigset_t mask;
static int configured(void) {
    int f = raw(SYS_fsopen, (long)"tmpfs", 0, 0, 0);
    raw(SYS_fsconfig, f, 6, 0, 0);
    return f;
}
/* The user namespace of a child, whose parent is this process's. */
static int namespace_with_parent(void) {
    char name[64];
    pid_t child = fork();
    if (child == 0) {
        unshare(CLONE_NEWUSER);
        raise(SIGSTOP);
    }
    waitpid(child, NULL, WUNTRACED);
    snprintf(name, sizeof name, "/proc/%d/ns/user", child);
    int number = raw(SYS_openat, AT_FDCWD, (long)name, O_RDONLY, 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return number;
}
static struct perf_event_attr counter = {.type = PERF_TYPE_SOFTWARE, .size = sizeof counter, .config = PERF_COUNT_SW_DUMMY, .exclude_kernel = 1};
static union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
static struct { unsigned short code; unsigned char yes, no; unsigned value; } allow[] = {{6, 0, 0, 0x7fff0000}};
static struct { unsigned short count; void *filter; } filter = {1, allow};
static char *program[] = {"/bin/true", NULL}, *empty[] = {NULL};
static struct file_handle *handle_of(const char *name, int *mount) {
    static union { struct file_handle handle; char room[sizeof(struct file_handle) + MAX_HANDLE_SZ]; } space;
    space.handle.handle_bytes = MAX_HANDLE_SZ;
    int id;
    if (name_to_handle_at(AT_FDCWD, name, &space.handle, &id, 0))
        space.handle.handle_bytes = 0;
    *mount = raw(SYS_openat, AT_FDCWD, (long)"/tmp", O_RDONLY, 0);
    return &space.handle;
}
static int nothing(void *unused) { (void)unused; return 0; }
static char child_stack[65536] __attribute__((aligned(16)));
#define CHILD_STACK (child_stack + sizeof child_stack)

CASE(creat) { KEEP("opened", creat(path("creat"), 0600)); }
CASE(creat64) { KEEP("opened", creat64(path("creat64"), 0600)); }
CASE(__open_2) { KEEP("opened", __open_2("/dev/null", O_RDONLY)); }
CASE(__open64_2) { KEEP("opened", __open64_2("/dev/null", O_RDONLY)); }
CASE(__openat_2) { KEEP("opened", __openat_2(AT_FDCWD, "/dev/null", O_RDONLY)); }
CASE(__openat64_2) { KEEP("opened", __openat64_2(AT_FDCWD, "/dev/null", O_RDONLY)); }
CASE(open_by_handle_at) { int mount; struct file_handle *h = handle_of("/tmp", &mount); KEEP("opened", open_by_handle_at(mount, h, O_RDONLY)); }
CASE(mkstemp) { KEEP("opened", mkstemp(path("aXXXXXX"))); }
CASE(mkstemp64) { KEEP("opened", mkstemp64(path("aXXXXXX"))); }
CASE(mkostemp) { KEEP("opened", mkostemp(path("aXXXXXX"), O_CLOEXEC)); }
CASE(mkostemp64) { KEEP("opened", mkostemp64(path("aXXXXXX"), O_CLOEXEC)); }
CASE(mkstemps) { KEEP("opened", mkstemps(path("aXXXXXX.c"), 2)); }
CASE(mkstemps64) { KEEP("opened", mkstemps64(path("aXXXXXX.c"), 2)); }
CASE(mkostemps) { KEEP("opened", mkostemps(path("aXXXXXX.c"), 2, O_CLOEXEC)); }
CASE(mkostemps64) { KEEP("opened", mkostemps64(path("aXXXXXX.c"), 2, O_CLOEXEC)); }
CASE(shm_open) { KEEP("opened", shm_open("/leakline-calls", O_CREAT | O_RDWR, 0600)); shm_unlink("/leakline-calls"); }
CASE(mq_open) { KEEP("opened", mq_open("/leakline-calls", O_CREAT | O_RDWR, 0600, NULL)); }
CASE(__mq_open_2) { raw(SYS_mq_open, (long)"leakline-calls", O_CREAT | O_RDWR, 0600, 0); KEEP("opened", __mq_open_2("/leakline-calls", O_RDWR)); }
CASE(memfd_create) { KEEP("opened", memfd_create("calls", MFD_CLOEXEC)); }
CASE(posix_openpt) { KEEP("opened", posix_openpt(O_RDWR | O_NOCTTY)); }
CASE(getpt) { KEEP("opened", getpt()); }
CASE(socket) { KEEP("opened", socket(AF_INET, SOCK_STREAM, 0)); }
CASE(accept) { KEEP("accepted", accept(waiting(), NULL, NULL)); }
CASE(accept4) { KEEP("accepted", accept4(waiting(), NULL, NULL, SOCK_CLOEXEC)); }
CASE(dup) { KEEP("duplicated", dup(2)); }
CASE(eventfd) { KEEP("opened", eventfd(0, 0)); }
CASE(epoll_create) { KEEP("opened", epoll_create(1)); }
CASE(epoll_create1) { KEEP("opened", epoll_create1(0)); }
CASE(inotify_init) { KEEP("opened", inotify_init()); }
CASE(inotify_init1) { KEEP("opened", inotify_init1(0)); }
CASE(fanotify_init) { KEEP("opened", fanotify_init(FAN_CLASS_NOTIF, O_RDONLY)); }
CASE(timerfd_create) { KEEP("opened", timerfd_create(CLOCK_MONOTONIC, 0)); }
CASE(signalfd) { int f = KEEP("opened", signalfd(-1, &mask, 0)); signalfd(f, &mask, 0); }
CASE(pidfd_open) { KEEP("opened", pidfd_open(getpid(), 0)); }
CASE(pidfd_getfd) { KEEP("received", pidfd_getfd((int)raw(SYS_pidfd_open, getpid(), 0, 0, 0), 2, 0)); }
CASE(fsopen) { KEEP("opened", fsopen("tmpfs", 0)); }
CASE(fspick) { KEEP("opened", fspick(AT_FDCWD, "/", 0)); }
CASE(fsmount) { KEEP("opened", fsmount(configured(), 0, 0)); }
CASE(open_tree) { KEEP("opened", open_tree(AT_FDCWD, "/", 0)); }
CASE(open) { KEEP("opened", open("/dev/null", O_RDONLY)); }
CASE(open64) { KEEP("opened", open64("/dev/null", O_RDONLY)); }
CASE(__open) { KEEP("opened", __open("/dev/null", O_RDONLY)); }
CASE(__open64) { KEEP("opened", __open64("/dev/null", O_RDONLY)); }
CASE(openat) { KEEP("opened", openat(AT_FDCWD, "/dev/null", O_RDONLY)); }
CASE(openat64) { KEEP("opened", openat64(AT_FDCWD, "/dev/null", O_RDONLY)); }
CASE(pipe) { int e[2]; DONE(pipe(e)); ALSO("opened", e[0]); ALSO("opened", e[1]); }
CASE(__pipe) { int e[2]; DONE(__pipe(e)); ALSO("opened", e[0]); ALSO("opened", e[1]); }
CASE(pipe2) { int e[2]; DONE(pipe2(e, O_CLOEXEC)); ALSO("opened", e[0]); ALSO("opened", e[1]); }
CASE(socketpair) { int e[2]; DONE(socketpair(AF_UNIX, SOCK_STREAM, 0, e)); ALSO("opened", e[0]); ALSO("opened", e[1]); }
CASE(openpty) { int e[2]; DONE(openpty(e, e + 1, NULL, NULL, NULL)); ALSO("opened", e[0]); ALSO("opened", e[1]); }
CASE(fopen) { KEEP("opened", fileno(fopen("/dev/null", "r"))); }
CASE(fopen64) { KEEP("opened", fileno(fopen64("/dev/null", "r"))); }
CASE(_IO_fopen) { KEEP("opened", fileno(_IO_fopen("/dev/null", "r"))); }
CASE(tmpfile) { KEEP("opened", fileno(tmpfile())); }
CASE(tmpfile64) { KEEP("opened", fileno(tmpfile64())); }
CASE(popen) { KEEP("opened", fileno(popen("exit", "r"))); }
CASE(_IO_popen) { KEEP("opened", fileno(_IO_popen("exit", "r"))); }
CASE(opendir) { KEEP("opened", dirfd(opendir("/"))); }
CASE(freopen) { FILE *f = fdopen(fresh(), "r"); KEEP("opened", fileno(freopen("/dev/null", "r", f))); }
CASE(freopen64) { FILE *f = fdopen(fresh(), "r"); KEEP("opened", fileno(freopen64("/dev/null", "r", f))); }
CASE(dup2) { KEEP("duplicated", dup2(2, fresh())); }
CASE(__dup2) { KEEP("duplicated", __dup2(2, fresh())); }
CASE(dup3) { KEEP("duplicated", dup3(2, fresh(), O_CLOEXEC)); }
CASE(fcntl) { KEEP("duplicated", fcntl(2, F_DUPFD, 100)); }
CASE(fcntl64) { KEEP("duplicated", fcntl64(2, F_DUPFD_CLOEXEC, 100)); }
CASE(__fcntl) { KEEP("duplicated", __fcntl(2, F_DUPFD, 100)); }
CASE(recvmsg) { struct msghdr m = message(); DONE(recvmsg(with_message(), &m, 0)); ALSO("received", passed(0)); ALSO("received", passed(1)); }
CASE(recvmmsg) { struct mmsghdr m = {message(), 0}; DONE(recvmmsg(with_message(), &m, 1, 0, NULL)); ALSO("received", passed(0)); ALSO("received", passed(1)); }
CASE(forkpty) { int f; pid_t p = forkpty(&f, NULL, NULL, NULL); if (p == 0) _exit(0); ALSO("opened", f); }
CASE(clone) { int f; DONE(clone(nothing, CHILD_STACK, CLONE_PIDFD | SIGCHLD, NULL, &f)); ALSO("opened", f); }
CASE(__clone) { int f; DONE(__clone(nothing, CHILD_STACK, CLONE_PIDFD | SIGCHLD, NULL, &f)); ALSO("opened", f); }
CASE(close) { DONE(close(fresh())); }
CASE(__close) { DONE(__close(fresh())); }
CASE(mq_close) { DONE(mq_close(fresh())); }
CASE(fclose) { DONE(fclose(fdopen(fresh(), "r"))); }
CASE(_IO_fclose) { DONE(_IO_fclose(fdopen(fresh(), "r"))); }
CASE(pclose) { DONE(pclose(popen("exit", "r"))); }
CASE(closedir) { DONE(closedir(opendir("/"))); }
CASE(close_range) { int f = fresh(); DONE(close_range(f, f, 0)); f = fresh(); DONE(close_range(f, f, CLOSE_RANGE_CLOEXEC)); DONE(close(f)); }
CASE(closefrom) { DONE(fcntl(2, F_DUPFD, 5000)); closefrom(5000); }
CASE(vfork) { pid_t p = vfork(); if (p == 0) { close(0); close(1); _exit(0); } ended(__func__, p); }
CASE(__vfork) { pid_t p = __vfork(); if (p == 0) { close(0); close(1); _exit(0); } ended(__func__, p); }
CASE(prctl) { char name[16]; DONE(prctl(PR_GET_NAME, name)); }
CASE(unshare) { CHILD(_exit(unshare(CLONE_FILES))); }
CASE(bind) { bind(0, NULL, 0); }
CASE(connect) { connect(0, NULL, 0); }
CASE(__connect) { __connect(0, NULL, 0); }

CASE(login_tty) { CHILD(int e[2]; openpty(e, e + 1, NULL, NULL, NULL); setsid(); _exit(login_tty(e[1]) || !isatty(0) || fcntl(e[1], F_GETFD) != -1)); }
CASE(daemon) { CHILD(_exit(daemon(1, 0))); }
CASE(execve) { CHILD(execve("/bin/true", program, empty)); }
CASE(execv) { CHILD(execv("/bin/true", program)); }
CASE(execvp) { CHILD(execvp("true", program)); }
CASE(execvpe) { CHILD(execvpe("true", program, empty)); }
CASE(execl) { CHILD(execl("/bin/sh", "sh", "-c", "test $1$2$3$4$5$6$7 = 1234567", "sh", "1", "2", "3", "4", "5", "6", "7", NULL)); }
CASE(execlp) { CHILD(execlp("sh", "sh", "-c", "test $1 = 1", "sh", "1", NULL)); }
CASE(execle) { CHILD(execle("/bin/sh", "sh", "-c", "test $X = 1", NULL, (char *[]){"X=1", NULL})); }
CASE(fexecve) { CHILD(fexecve(open("/bin/true", O_RDONLY), program, empty)); }
CASE(execveat) { CHILD(execveat(AT_FDCWD, "/bin/true", program, empty, 0)); }
CASE(posix_spawn) { pid_t p; DONE(posix_spawn(&p, "/bin/true", NULL, NULL, program, empty) ? -1 : 0); ended(__func__, p); }
CASE(posix_spawnp) { pid_t p; DONE(posix_spawnp(&p, "true", NULL, NULL, program, empty) ? -1 : 0); ended(__func__, p); }
CASE(system) { DONE(system("exit")); }

SYSTEM_CALL(open) { KEEP("opened", syscall(SYS_open, "/dev/null", O_RDONLY)); }
SYSTEM_CALL(openat) { KEEP("opened", syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY)); }
SYSTEM_CALL(openat2) { KEEP("opened", syscall(SYS_openat2, AT_FDCWD, "/dev/null", (uint64_t[3]){O_RDONLY}, 24)); }
SYSTEM_CALL(creat) { KEEP("opened", syscall(SYS_creat, "creat", 0600)); }
SYSTEM_CALL(open_by_handle_at) { KEEP("opened", syscall(SYS_open_by_handle_at, raw(SYS_openat, AT_FDCWD, (long)"/tmp", 0, 0), handle_of("/tmp", &(int){0}), 0)); }
SYSTEM_CALL(open_tree) { KEEP("opened", syscall(SYS_open_tree, AT_FDCWD, "/", 0)); }
SYSTEM_CALL(open_tree_attr) { KEEP("opened", syscall(SYS_open_tree_attr, AT_FDCWD, "/", 0, NULL, 0)); }
SYSTEM_CALL(fsopen) { KEEP("opened", syscall(SYS_fsopen, "tmpfs", 0)); }
SYSTEM_CALL(fspick) { KEEP("opened", syscall(SYS_fspick, AT_FDCWD, "/", 0)); }
SYSTEM_CALL(fsmount) { KEEP("opened", syscall(SYS_fsmount, configured(), 0, 0)); }
SYSTEM_CALL(socket) { KEEP("opened", syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)); }
SYSTEM_CALL(accept) { KEEP("accepted", syscall(SYS_accept, waiting(), 0, 0)); }
SYSTEM_CALL(accept4) { KEEP("accepted", syscall(SYS_accept4, waiting(), 0, 0, 0)); }
SYSTEM_CALL(dup) { KEEP("duplicated", syscall(SYS_dup, 2)); }
SYSTEM_CALL(fcntl) { KEEP("duplicated", syscall(SYS_fcntl, 2, F_DUPFD_CLOEXEC, 50)); }
SYSTEM_CALL(eventfd) { KEEP("opened", syscall(SYS_eventfd, 0)); }
SYSTEM_CALL(eventfd2) { KEEP("opened", syscall(SYS_eventfd2, 0, 0)); }
SYSTEM_CALL(epoll_create) { KEEP("opened", syscall(SYS_epoll_create, 1)); }
SYSTEM_CALL(epoll_create1) { KEEP("opened", syscall(SYS_epoll_create1, 0)); }
SYSTEM_CALL(inotify_init) { KEEP("opened", syscall(SYS_inotify_init)); }
SYSTEM_CALL(inotify_init1) { KEEP("opened", syscall(SYS_inotify_init1, 0)); }
SYSTEM_CALL(fanotify_init) { KEEP("opened", syscall(SYS_fanotify_init, FAN_CLASS_NOTIF, O_RDONLY)); }
SYSTEM_CALL(timerfd_create) { KEEP("opened", syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0)); }
SYSTEM_CALL(signalfd) { KEEP("opened", syscall(SYS_signalfd, -1, &mask, 8)); }
SYSTEM_CALL(signalfd4) { KEEP("opened", syscall(SYS_signalfd4, -1, &mask, 8, 0)); }
SYSTEM_CALL(memfd_create) { KEEP("opened", syscall(SYS_memfd_create, "calls", 0)); }
SYSTEM_CALL(memfd_secret) { KEEP("opened", syscall(SYS_memfd_secret, 0)); }
SYSTEM_CALL(pidfd_open) { KEEP("opened", syscall(SYS_pidfd_open, getpid(), 0)); }
SYSTEM_CALL(pidfd_getfd) { KEEP("received", syscall(SYS_pidfd_getfd, raw(SYS_pidfd_open, getpid(), 0, 0, 0), 2, 0)); }
SYSTEM_CALL(mq_open) { KEEP("opened", syscall(SYS_mq_open, "leakline-calls", O_RDWR, 0, NULL)); }
SYSTEM_CALL(userfaultfd) { KEEP("opened", syscall(SYS_userfaultfd, 1)); }
SYSTEM_CALL(perf_event_open) { KEEP("opened", syscall(SYS_perf_event_open, &counter, 0, -1, -1, 0)); }
SYSTEM_CALL(io_uring_setup) { KEEP("opened", syscall(SYS_io_uring_setup, 4, (char[512]){0})); }
SYSTEM_CALL(landlock_create_ruleset) { KEEP("opened", syscall(SYS_landlock_create_ruleset, (uint64_t[1]){1}, 8, 0)); }
SYSTEM_CALL(seccomp) { KEEP("opened", syscall(SYS_seccomp, 1, 8, &filter)); }
SYSTEM_CALL(bpf) { KEEP("opened", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map)); }
SYSTEM_CALL(ioctl) { KEEP("opened", syscall(SYS_ioctl, raw(SYS_openat, AT_FDCWD, (long)"/proc/self/ns/mnt", 0, 0), 0xb701)); }

REQUEST(TIOCGPTPEER) { int f = raw(SYS_openat, AT_FDCWD, (long)"/dev/ptmx", O_RDWR | O_NOCTTY, 0); unlockpt(f); KEEP("opened", ioctl(f, _IO('T', 0x41), O_RDWR | O_NOCTTY)); }
REQUEST(NS_GET_USERNS) { KEEP("opened", ioctl((int)raw(SYS_openat, AT_FDCWD, (long)"/proc/self/ns/mnt", 0, 0), _IO(0xb7, 1))); }
REQUEST(NS_GET_PARENT) { KEEP("opened", ioctl(namespace_with_parent(), _IO(0xb7, 2))); }
REQUEST(SIOCGSKNS) { KEEP("opened", ioctl((int)raw(SYS_socket, AF_INET, SOCK_STREAM, 0, 0), 0x894c)); }
REQUEST(KVM_CREATE_VM) { KEEP("opened", ioctl((int)raw(SYS_openat, AT_FDCWD, (long)"/dev/kvm", O_RDWR, 0), _IO(0xae, 1), 0)); }
REQUEST(KVM_CREATE_VCPU) { int vm = raw(SYS_ioctl, raw(SYS_openat, AT_FDCWD, (long)"/dev/kvm", O_RDWR, 0), _IO(0xae, 1), 0, 0); KEEP("opened", ioctl(vm, _IO(0xae, 0x41), 0)); }

#define RUN(name, ...) case_ioctl_##name();
CASE(ioctl) { LEAKLINE_REQUESTS(RUN) }
#undef RUN
#define RUN(name, ...) case_syscall_##name();
CASE(syscall) { LEAKLINE_SYSTEM_CALLS(RUN) }
#undef RUN

int main(int count, char **arguments) {
    if (count != 2 || chdir(arguments[1]) || signal(SIGCHLD, SIG_DFL) == SIG_ERR)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
#define RUN(name, ...) case_##name();
    LEAKLINE_INTERCEPTED(RUN)
    puts("ready");
    while (getchar() != EOF)
        ;
    return 0;
}
