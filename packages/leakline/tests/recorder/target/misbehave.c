/* Programs that treat descriptors badly, or do hard things to them: `misbehave NAME`. Each prints what it got, which must be the same without the
 * recorder, and then waits for its input to end. AT(label, call) is a call whose line the test knows by its label.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static int at(const char *label, const char *function, int line, int result) {
    int error = errno;
    printf("%s %s %d %d %d\n", label, function, line, result, result < 0 ? error : 0);
    errno = error;
    return result;
}
#define AT(label, call) at(label, __func__, __LINE__, call)

static int highest(void) { return (int)sysconf(_SC_OPEN_MAX) < 1024 ? (int)sysconf(_SC_OPEN_MAX) : 1024; }

static void close_all_by_loop(void) {
    close(open("/dev/null", O_RDONLY));
    for (int number = 3; number < highest(); number++)
        close(number);
    AT("kept", eventfd(0, 0));
}

static void close_all_by_range(void) {
    AT("closed", eventfd(0, 0));
    AT("range", close_range(3, ~0u, 0));
    AT("kept", eventfd(0, 0));
}

static void close_all_from(void) {
    AT("closed", eventfd(0, 0));
    closefrom(3);
    AT("kept", eventfd(0, 0));
}

static void double_close(void) {
    int number = AT("open", open("/dev/null", O_RDONLY));
    AT("close", close(number));
    AT("again", close(number));
    close(-1);
    close(1000);
}

static void double_close_of_a_stream(void) {
    FILE *stream = fopen("/dev/null", "w");
    int number = AT("open", dup2(1, fileno(stream)));
    fputs("text", stream);
    AT("close", close(number));
    AT("again", fclose(stream));
}

/* The write fails with EBADF, the close does not. */
static void stream_that_cannot_be_written(void) {
    FILE *stream = fopen("/dev/null", "w");
    int number = open("/dev/null", O_RDONLY);
    fputs("text", stream);
    dup2(number, fileno(stream));
    AT("close", fclose(stream));
    AT("kept", fcntl(number, F_GETFD));
}

static void vfork_child_that_closes(void) {
    int number = AT("kept", eventfd(0, 0));
    pid_t child = vfork();
    if (child == 0) {
        close(number);
        close_range(3, ~0u, 0);
        _exit(open("/dev/null", O_RDONLY) != 3);
    }
    int status;
    waitpid(child, &status, 0);
    AT("child", status);
    AT("kept", eventfd(0, 0));
}

static int closes(void *number) {
    close(*(int *)number);
    return 0;
}

static void clone_child_that_closes(void) {
    static char stack[65536] __attribute__((aligned(16)));
    int number = AT("kept", eventfd(0, 0));
    for (int vfork_too = 0; vfork_too < 2; vfork_too++) {
        pid_t child = clone(closes, stack + sizeof stack, CLONE_VM | (vfork_too ? CLONE_VFORK : 0) | SIGCHLD, &number);
        waitpid(child, NULL, 0);
    }
    AT("kept", eventfd(0, 0));
}

static void *churn(void *unused) {
    for (int i = 0; i < 500; i++) {
        int ends[2], number = socket(AF_INET, SOCK_STREAM, 0);
        if (pipe(ends) || close(dup(number)) || close(ends[0]) || close(number) || close(ends[1]))
            abort();
    }
    return unused;
}

static void threads(void) {
    pthread_t thread[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&thread[i], NULL, churn, NULL);
    for (int i = 0; i < 8; i++)
        pthread_join(thread[i], NULL);
    AT("kept", eventfd(0, 0));
}

static volatile sig_atomic_t handled;

static void handler(int signal) {
    (void)signal;
    int error = errno, number = open("/dev/null", O_RDONLY);
    if (number < 0 || close(number))
        abort();
    handled++;
    errno = error;
}

static void handlers(void) {
    struct sigaction action = {.sa_handler = handler};
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGPROF, &action, NULL);
    setitimer(ITIMER_PROF, &often, NULL);
    while (handled < 50)
        churn(NULL);
    setitimer(ITIMER_PROF, &never, NULL);
    AT("kept", eventfd(0, 0));
}

static sigjmp_buf out;
static volatile sig_atomic_t jumps;

static void jump(int number) {
    (void)number;
    jumps++;
    siglongjmp(out, 1);
}

static __attribute__((noinline)) int deeper(int depth) {
    int result = depth ? deeper(depth - 1) : AT("deep", eventfd(0, 0));
    __asm__ volatile("" ::: "memory"); /* no tail call */
    return result;
}

/* A handler that jumps, at any point of many calls. What was open at a jump is closed at the end, by number. */
static void jumps_out_of_calls(void) {
    struct itimerval each = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    signal(SIGALRM, jump);
    setitimer(ITIMER_REAL, &each, NULL);
    sigsetjmp(out, 1);
    while (jumps < 300)
        close(eventfd(0, 0));
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGALRM, SIG_IGN);
    closefrom(3);
    AT("kept", eventfd(0, 0));
    deeper(20);
    AT("last", eventfd(0, 0));
}

static void *blocked(void *listener) { return (void *)(long)accept(*(int *)listener, NULL, NULL); }

/* accept() and close() are cancellation points, and stay it. */
static void cancellation(void) {
    pthread_t thread;
    void *result;
    int listener = AT("kept", socket(AF_INET, SOCK_STREAM, 0));
    listen(listener, 1);
    pthread_create(&thread, NULL, blocked, &listener);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    AT("cancelled", result == PTHREAD_CANCELED);
}

static void exhaustion(void) {
    struct rlimit limit = {16, 16};
    setrlimit(RLIMIT_NOFILE, &limit);
    int number;
    while ((number = dup(2)) >= 0)
        ;
    AT("exhausted", socket(AF_INET, SOCK_STREAM, 0));
    closefrom(3);
}

static void failed_sockets(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int refused = AT("connect", socket(AF_INET, SOCK_STREAM, 0));
    AT("refused", connect(refused, (struct sockaddr *)&address, sizeof address));
    int elsewhere = AT("bind", socket(AF_INET, SOCK_STREAM, 0));
    address.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1: nobody's */
    AT("failed", bind(elsewhere, (struct sockaddr *)&address, sizeof address));
}

#define PROGRAM(name) {#name, name}
static const struct { const char *name; void (*run)(void); } programs[] = {
    PROGRAM(close_all_by_loop), PROGRAM(close_all_by_range), PROGRAM(close_all_from), PROGRAM(double_close),
    PROGRAM(double_close_of_a_stream), PROGRAM(stream_that_cannot_be_written), PROGRAM(vfork_child_that_closes),
    PROGRAM(clone_child_that_closes), PROGRAM(threads), PROGRAM(handlers), PROGRAM(cancellation), PROGRAM(exhaustion), PROGRAM(failed_sockets),
    PROGRAM(jumps_out_of_calls),
};

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (unsigned i = 0; count == 2 && i < sizeof programs / sizeof *programs; i++)
        if (strcmp(arguments[1], programs[i].name) == 0) {
            programs[i].run();
            puts("ready");
            while (getchar() != EOF)
                ;
            return 0;
        }
    return 2;
}
