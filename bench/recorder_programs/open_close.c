/* Opens and closes a descriptor OPERATIONS times, twelve calls deep, with STEPS of arithmetic each; prints the nanoseconds of one, by the clock and of
 * processor time.
 *
 *   open_close OPERATIONS STEPS
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t state = 88172645463325252u;

static void work(long steps) {
    uint64_t x = state;
    for (long i = 0; i < steps; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    state = x;
}

static int open_one(long number) {
    switch (number % 3) {
    case 0:
        return socket(AF_INET, SOCK_STREAM, 0);
    case 1:
        return eventfd(0, 0);
    default:
        return open("/dev/null", O_RDONLY);
    }
}

static __attribute__((noinline)) int deep(long number, int depth) {
    int result = depth ? deep(number, depth - 1) : open_one(number);
    __asm__ volatile("" ::: "memory"); /* no tail call */
    return result;
}

static double now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(int count, char **words) {
    long operations = count > 1 ? atol(words[1]) : 1000, steps = count > 2 ? atol(words[2]) : 0;
    double began = now_ns(CLOCK_MONOTONIC), processor = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < operations; i++) {
        int number = deep(i, 8);
        work(steps);
        if (number < 0 || close(number) != 0)
            return 1;
    }
    processor = now_ns(CLOCK_PROCESS_CPUTIME_ID) - processor;
    printf("%.1f %.1f\n", (now_ns(CLOCK_MONOTONIC) - began) / (double)operations, processor / (double)operations);
    return 0;
}
