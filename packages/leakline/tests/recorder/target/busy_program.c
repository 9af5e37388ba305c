/* Opens and closes real descriptors at random, of every kind that is quick to make, then says "{}" and waits until its input ends.
 *
 *   busy_program threads ROUNDS   16 threads, each with its own descriptors
 *   busy_program signals ROUNDS   one thread, whose SIGPROF handler does the same
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { THREADS = 16, HELD = 20 };

static unsigned long rounds;
static volatile sig_atomic_t signals;

static int open_one(unsigned random) {
    switch (random % 6) {
    case 0:
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    case 1:
        return eventfd(0, EFD_CLOEXEC);
    case 2:
        return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    case 3:
        return epoll_create1(EPOLL_CLOEXEC);
    case 4:
        return fcntl(0, F_DUPFD_CLOEXEC, 3);
    default:
        return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    }
}

static void *work(void *argument) {
    unsigned random = (unsigned)(size_t)argument * 7919u + 1u;
    int held[HELD];
    memset(held, -1, sizeof held);
    for (unsigned long round = 0; round < rounds; round++) {
        random = random * 1664525u + 1013904223u;
        int *slot = &held[(random >> 20) % HELD];
        if (*slot >= 0) {
            close(*slot);
            *slot = -1;
        } else if ((*slot = open_one(random >> 10)) < 0) {
            abort();
        }
    }
    return NULL;
}

static void on_signal(int number) {
    (void)number;
    static int held = -1;
    if (held >= 0)
        close(held);
    held = open("/dev/null", O_RDONLY | O_CLOEXEC);
    signals++;
}

static void with_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 100}, {0, 100}};
    sigaction(SIGPROF, &action, NULL);
    setitimer(ITIMER_PROF, &often, NULL);
    for (unsigned long round = 0; round < rounds; round++) {
        int number = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (number < 0 || close(number) != 0)
            abort();
    }
    memset(&often, 0, sizeof often);
    setitimer(ITIMER_PROF, &often, NULL);
}

int main(int count, char **arguments) {
    if (count != 3)
        return 2;
    rounds = strtoul(arguments[2], NULL, 10);
    if (strcmp(arguments[1], "signals") == 0) {
        with_signals();
    } else {
        pthread_t threads[THREADS];
        for (size_t i = 0; i < THREADS; i++)
            if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
                abort();
        for (size_t i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    printf("{\"signals\": %d}\n", (int)signals);
    fflush(stdout);
    return getchar() == EOF ? 0 : 0;
}
