/* A program that waits once, in the way and for as long as it is told, then prints: result, errno, elapsed milliseconds.
 * The wait must not notice that functions are called in its thread meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long wait_ms;
static int ends[2];

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static struct timespec in_ms(clockid_t clock, long ms) {
    struct timespec time = {0, 0};
    if (clock >= 0)
        clock_gettime(clock, &time);
    long long ns = time.tv_nsec + (ms % 1000) * 1000000LL;
    return (struct timespec){time.tv_sec + ms / 1000 + ns / 1000000000, ns % 1000000000};
}

static int timer(void) { /* readable after wait_ms */
    struct itimerspec when = {.it_value = in_ms(-1, wait_ms)};
    int file = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(file, 0, &when, NULL);
    return file;
}

static void handler(int number) { (void)number; }

static void alarm_with_handler(int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    struct itimerval when = {.it_value = {wait_ms / 1000, (wait_ms % 1000) * 1000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &when, NULL);
}

static int watched_epoll(int file) {
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(0);
    if (file >= 0)
        epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event);
    return epoll;
}

static pid_t child_after(int what) { /* ends, writes or connects after the time */
    pid_t child = fork();
    if (child)
        return child;
    struct timespec time = in_ms(-1, wait_ms);
    nanosleep(&time, NULL);
    if (what)
        _exit(write(ends[1], "x", 1) != 1);
    _exit(0);
}

static long wait_in(const char *kind) {
    struct timespec time = in_ms(-1, wait_ms);
    struct timeval value = {wait_ms / 1000, (wait_ms % 1000) * 1000};
    struct epoll_event event;
    struct pollfd nothing = {.fd = ends[0], .events = POLLIN};
    char byte;
    if (!strcmp(kind, "nanosleep"))
        return nanosleep(&time, &time);
    if (!strcmp(kind, "sleep_until")) {
        time = in_ms(CLOCK_MONOTONIC, wait_ms);
        return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
    }
    if (!strcmp(kind, "poll"))
        return poll(&nothing, 1, (int)wait_ms);
    if (!strcmp(kind, "ppoll"))
        return ppoll(&nothing, 1, &time, NULL);
    if (!strcmp(kind, "select"))
        return select(0, NULL, NULL, NULL, &value);
    if (!strcmp(kind, "epoll_timeout"))
        return epoll_wait(watched_epoll(-1), &event, 1, (int)wait_ms);
    if (!strcmp(kind, "epoll_event"))
        return epoll_wait(watched_epoll(timer()), &event, 1, -1);
    if (!strcmp(kind, "read_timer")) {
        unsigned long long count;
        return read(timer(), &count, sizeof count);
    }
    if (!strcmp(kind, "read_pipe")) {
        child_after(1);
        return read(ends[0], &byte, 1);
    }
    if (!strcmp(kind, "recv")) {
        socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
        child_after(1);
        return recv(ends[0], &byte, 1, 0);
    }
    if (!strcmp(kind, "wait")) {
        pid_t child = child_after(0);
        return waitpid(child, NULL, 0) == child;
    }
    if (!strcmp(kind, "condition")) {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
        pthread_mutex_lock(&mutex);
        time = in_ms(CLOCK_REALTIME, wait_ms);
        return pthread_cond_timedwait(&condition, &mutex, &time);
    }
    if (!strcmp(kind, "semaphore")) {
        sem_t semaphore;
        sem_init(&semaphore, 0, 0);
        time = in_ms(CLOCK_REALTIME, wait_ms);
        return sem_timedwait(&semaphore, &time);
    }
    /* A handler ends these, as it does without us. */
    if (!strcmp(kind, "pause_signal")) {
        alarm_with_handler(SA_RESTART);
        return pause();
    }
    if (!strcmp(kind, "nanosleep_signal")) {
        alarm_with_handler(SA_RESTART);
        time.tv_sec += 60;
        return nanosleep(&time, &time);
    }
    if (!strcmp(kind, "epoll_signal")) {
        alarm_with_handler(SA_RESTART);
        return epoll_wait(watched_epoll(-1), &event, 1, -1);
    }
    if (!strcmp(kind, "read_signal")) {
        alarm_with_handler(0);
        return read(ends[0], &byte, 1);
    }
    abort();
}

int main(int count, char **words) {
    if (count != 3 || pipe(ends) != 0)
        return 2;
    wait_ms = atol(words[2]);
    printf("ready\n");
    fflush(stdout);
    double began = now_ms();
    errno = 0;
    long result = wait_in(words[1]);
    int error = errno;
    printf("%ld %d %.1f\n", result, error, now_ms() - began);
    return 0;
}
