/* Writes a recording as fast as it can, of descriptors that do not exist: for readers in another process, and to be measured.
 *
 *   exercise churn PATH ROUNDS   16 threads open and close at random; ROUNDS 0: until killed. Each slot's fields belong together (see `open_one`).
 *                                Prints "ready", at the end "opened N closed N open N", and stays until its input ends.
 *   exercise fill PATH SLOTS     so many slots are open at once, each by one of 1000 stacks; then as above.
 *   exercise cost PATH PAIRS     prints the nanoseconds of CPU time of one open and close, with their brackets, without a stack.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "recording_private.h"
#include "tests.h"

enum { THREADS = 16, OWN = 64, SHARED = 8, FIRST = 1000 };

const char *leakline_function_name(uint32_t function) {
    static const char *const names[] = {"", "open", "socket", "eventfd", "close"};
    return function < sizeof names / sizeof names[0] ? names[function] : NULL;
}

static unsigned long rounds;
static uint64_t opened_by_all;

static uint32_t stack_of(int number) {
    struct leakline_origin origin = {.native_count = 12};
    for (int i = 0; i < origin.native_count; i++)
        origin.native[i] = 0x10000u + (uintptr_t)i * 16u;
    origin.native[3] = (uintptr_t)number; /* the reader finds the number in the stack again */
    return leakline_stack(&origin);
}

static void open_one(int number) {
    if (!leakline_enter())
        abort();
    leakline_opened(number, (enum leakline_how)(1 + number % 4), number + 7, 1u + (uint32_t)number % 3u, stack_of(number));
    leakline_leave();
}

static void close_one(int number) {
    if (!leakline_enter())
        abort();
    leakline_closing(number, 4, stack_of(number));
    leakline_leave();
}

static void *churn(void *argument) {
    int thread = (int)(intptr_t)argument;
    unsigned random = (unsigned)thread * 977u + 1u;
    bool is_open[OWN] = {false};
    for (unsigned long round = 0; rounds == 0 || round < rounds; round++) {
        random = random * 1664525u + 1013904223u;
        int which = (int)(random >> 20) % OWN;
        int number = FIRST + thread * OWN + which;
        if (is_open[which])
            close_one(number);
        else
            open_one(number);
        if (!is_open[which])
            __atomic_fetch_add(&opened_by_all, 1, __ATOMIC_RELAXED);
        is_open[which] = !is_open[which];
        for (int i = 0; rounds == 0 && i < 10; i++) /* 2 us: what the system calls take that open and close a real one */
            syscall(SYS_getppid);
        if (round % 16 == 0) { /* numbers that all threads open and close at once */
            open_one(FIRST - 1 - (int)(random >> 24) % SHARED);
            __atomic_fetch_add(&opened_by_all, 1, __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

static void wait_for_end_of_input(void) {
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
}

static void run_churn(void) {
    pthread_t threads[THREADS];
    puts("ready");
    fflush(stdout);
    for (intptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, churn, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    printf("opened %lu\n", (unsigned long)opened_by_all);
    fflush(stdout);
    wait_for_end_of_input();
}

static void run_fill(int slots) {
    for (int number = FIRST; number < FIRST + slots; number++) {
        CHECK(leakline_enter());
        leakline_opened(number, LEAKLINE_HOW_OPENED, -1, 1, stack_of(number % 1000));
        leakline_leave();
    }
    puts("ready");
    fflush(stdout);
    wait_for_end_of_input();
}

static uint64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void run_cost(unsigned long pairs) {
    CHECK(leakline_enter());
    uint32_t stack = stack_of(FIRST);
    leakline_leave();
    double best = 1e9;
    for (int sample = 0; sample < 20; sample++) {
        uint64_t before = cpu_ns();
        for (unsigned long pair = 0; pair < pairs; pair++) {
            CHECK(leakline_enter());
            leakline_opened(FIRST, LEAKLINE_HOW_OPENED, -1, 1, stack);
            leakline_leave();
            CHECK(leakline_enter());
            leakline_closing(FIRST, 4, stack);
            leakline_leave();
        }
        double each = (double)(cpu_ns() - before) / (double)pairs;
        best = each < best ? each : best;
    }
    printf("%.1f\n", best);
}

int main(int count, char **arguments) {
    CHECK(count == 4 && leakline_recording_begin(arguments[2]) == 0);
    rounds = strtoul(arguments[3], NULL, 10);
    if (strcmp(arguments[1], "churn") == 0)
        run_churn();
    else if (strcmp(arguments[1], "fill") == 0)
        run_fill((int)rounds);
    else
        run_cost(rounds);
    return 0;
}
