/* Runs the tests of the native walk: `unwind_tests [how long]`. */
#include "unwind_tests.h"

#include "unwind_libraries.h"
#include "unwind_path.h"

__thread struct leakline_origin seen;
int long_run = 1;

/* --- each walk is expected to be one of those before that began alike */

enum { PATHS = 32 };

struct kept {
    uint64_t native[LEAKLINE_NATIVE_FRAMES];
    uint16_t words[LEAKLINE_PATH_WORDS];
    struct leakline_path path;
};

static __thread struct kept kept[PATHS];
static __thread unsigned turn;
static unsigned long along;

/* Which of the kept paths it takes is asked before; what comes of it must be what the walk comes to. */
static bool is_along(const struct leakline_registers *caller, struct leakline_origin *expected) {
    for (int i = 0; i < PATHS; i++)
        if (leakline_unwind_along(caller, &kept[i].path, expected)) return true;
    return false;
}

static void keep_path(void) {
    struct kept *place = &kept[turn++ % PATHS];
    place->path.word_count = seen.path_words;
    memcpy(place->words, seen.path, seen.path_words * sizeof place->words[0]);
    place->path.native_count = seen.native_count;
    place->path.generation = seen.generation;
    place->path.native = place->native;
    place->path.words = place->words;
    for (int i = 0; i < seen.native_count; i++) place->native[i] = seen.native[i];
}

__attribute__((noinline)) void walk_here(void) {
    struct leakline_registers caller = LEAKLINE_CALLER;
    static __thread struct leakline_origin expected;
    static __thread uint16_t noted[LEAKLINE_PATH_WORDS];
    bool is_expected = is_along(&caller, &expected);
    seen.path = noted;
    leakline_unwind(&caller, &seen);
    if (!is_expected) {
        keep_path();
        return;
    }
    __atomic_fetch_add(&along, 1, __ATOMIC_RELAXED);
    CHECK(expected.native_count == seen.native_count && expected.flags == seen.flags);
    CHECK(memcmp(expected.native, seen.native, seen.native_count * sizeof seen.native[0]) == 0);
}

static void run(const char *name, void (*test)(void)) {
    struct leakline_unwind_checks *checks = &leakline_unwind_checks, before = *checks;
    unsigned long before_along = along;
    test();
    fprintf(stderr, "  %-10s %8lu walks compared with libgcc, %lu broken (%lu where libgcc goes on), %lu different; %lu were expected\n", name,
            checks->walks - before.walks, checks->broken - before.broken, checks->shorter - before.shorter, checks->different - before.different,
            along - before_along);
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
