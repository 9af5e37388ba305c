/* Runs the tests of the native walk: `unwind_tests [how long]`. */
#include "unwind_tests.h"

#include "unwind_libraries.h"

__thread struct leakline_origin seen;
int long_run = 1;

__attribute__((noinline)) void walk_here(void) {
    struct leakline_registers caller = LEAKLINE_CALLER;
    leakline_unwind(&caller, &seen);
}

static void run(const char *name, void (*test)(void)) {
    struct leakline_unwind_checks *checks = &leakline_unwind_checks, before = *checks;
    test();
    fprintf(stderr, "  %-10s %8lu walks compared with libgcc, %lu broken (%lu where libgcc goes on), %lu different\n", name,
            checks->walks - before.walks, checks->broken - before.broken, checks->shorter - before.shorter, checks->different - before.different);
    CHECK(checks->different == 0);
}

int main(int count, char **arguments) {
    if (count > 1) long_run = atoi(arguments[1]);
    leakline_unwind_prepare();
#ifdef __GLIBC__
    CHECK(leakline_libraries_counted());
#endif
#ifndef ONLY_THREADS
    run("frames", test_frames);
    run("signals", test_signals);
    run("stacks", test_stacks);
    run("broken", test_broken);
    run("libraries", test_libraries);
#endif
    run("threads", test_threads);
    run("table", test_table); /* last: it counts generations that have not been */
    return 0;
}
