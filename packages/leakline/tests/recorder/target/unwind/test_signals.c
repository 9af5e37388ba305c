/* Walks out of signal handlers: at chosen and at random points, on the thread's stack and on an alternate one. */
#define _GNU_SOURCE
#include "unwind_tests.h"

#include <math.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

static volatile sig_atomic_t signals, incomplete;
static volatile double sink;

__attribute__((noinline)) static void handle(int number) {
    int error = errno;
    walk_here();
    if (number == SIGUSR1) raise(SIGUSR2); /* one in another */
    signals++;
    incomplete += (seen.flags & LEAKLINE_NATIVE_BROKEN) != 0;
    errno = error;
}

static void catch(int number, int flags) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags | SA_RESTART};
    CHECK(sigaction(number, &action, NULL) == 0);
}

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Functions with all sorts of frames: libc's in C and assembly, the linkage table, the kernel's vdso. */
static void work(void) {
    char text[200];
    int numbers[100];
    struct timespec now;
    for (int i = 0; i < 100; i++) numbers[i] = i * 7919 % 101;
    qsort(numbers, 100, sizeof numbers[0], compare);
    for (int i = 0; i < 20; i++) clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof text, "%.17g %d %s", pow(1.1, numbers[3]), numbers[5], "some text");
    sink += strtod(text, NULL) + (double)strlen(text) + sin(numbers[7]);
    free(malloc((size_t)numbers[9] * 100 + 1));
}

static void at_random(int wanted) {
    struct itimerval each = {.it_interval = {.tv_usec = 500}, .it_value = {.tv_usec = 500}}, never = {0};
    signals = 0;
    catch(SIGPROF, SA_ONSTACK);
    CHECK(setitimer(ITIMER_PROF, &each, NULL) == 0);
    /* The timer counts this process's processor time, of which it gets a small part on a loaded machine: so does the deadline. */
    for (clock_t end = clock() + 60 * CLOCKS_PER_SEC; signals < wanted && clock() < end;) work();
    CHECK(setitimer(ITIMER_PROF, &never, NULL) == 0);
    CHECK(signals >= wanted);
}

void test_signals(void) {
    catch(SIGUSR1, 0);
    catch(SIGUSR2, 0);
    raise(SIGUSR1);
    CHECK(signals == 2 && incomplete == 0);
    unsigned long shorter = leakline_unwind_checks.shorter;

    at_random(100 * long_run);
    stack_t before, alternate = {.ss_size = 1 << 16, .ss_sp = malloc(1 << 16)};
    CHECK(sigaltstack(&alternate, &before) == 0);
    catch(SIGUSR1, SA_ONSTACK);
    raise(SIGUSR1);
    at_random(100 * long_run);
    before.ss_flags = before.ss_sp == NULL ? SS_DISABLE : before.ss_flags;
    CHECK(sigaltstack(&before, NULL) == 0);
    free(alternate.ss_sp);
    CHECK(leakline_unwind_checks.shorter == shorter);
#if defined(__x86_64__)
    CHECK(incomplete == 0); /* on aarch64 linkers do not describe the linkage table, where a signal may hit: libgcc ends there too */
#endif
}
