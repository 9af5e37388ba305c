/* Computes and never enters a system call, but in the handler of SIGUSR1, which opens a descriptor.
 *
 *   spin            in main
 *   spin callback   in a function that libc calls: qsort
 *   spin small      in a thread with a stack of 32 KiB, which main waits for
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile unsigned long turns;

static void opens(int number) {
    char text[32];
    int error = errno, length = snprintf(text, sizeof text, "%d\n", open("/dev/null", O_RDONLY));
    (void)number;
    if (write(1, text, (size_t)length) < 0)
        _exit(1);
    errno = error;
}

static void compute(void) {
    double a = 1, b = 3;
    errno = 77;
    for (;;) {
        a += 1, b += 3;
        __asm__ volatile("" : "+x"(a), "+x"(b));
        turns++;
        if (errno != 77 || b != 3 * a)
            _exit(9);
    }
}

static int compare(const void *a, const void *b) {
    (void)a, (void)b;
    compute();
    return 0;
}

static void *run(void *argument) {
    compute();
    return argument;
}

static int wait_for_a_small_thread(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    return pthread_attr_setstacksize(&attributes, 32768) || pthread_create(&thread, &attributes, run, NULL) || pthread_join(thread, NULL);
}

int main(int count, char **words) {
    signal(SIGUSR1, opens);
    printf("ready\n");
    fflush(stdout);
    if (count > 1 && strcmp(words[1], "callback") == 0)
        qsort((char[]){3, 2, 1}, 3, 1, compare);
    if (count > 1 && strcmp(words[1], "small") == 0)
        return wait_for_a_small_thread();
    compute();
}
