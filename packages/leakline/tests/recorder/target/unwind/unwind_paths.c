/* All 46 656 call paths through functions built with six sets of options (path.c), each walked and compared with libgcc: first when its rules
 * are made, then from the table. `unwind_paths [every]`: each path or every n-th. */
#include "unwind_tests.h"

enum { VARIANTS = 6, LEVELS = 6, PATHS = 46656 };

__thread struct leakline_origin seen;
static volatile unsigned sum;

#define LEVELS_OF(level)                                                                                                                   \
    unsigned level_##level##_0(unsigned, unsigned, unsigned), level_##level##_1(unsigned, unsigned, unsigned),                             \
        level_##level##_2(unsigned, unsigned, unsigned), level_##level##_3(unsigned, unsigned, unsigned),                                  \
        level_##level##_4(unsigned, unsigned, unsigned), level_##level##_5(unsigned, unsigned, unsigned);
LEVELS_OF(0) LEVELS_OF(1) LEVELS_OF(2) LEVELS_OF(3) LEVELS_OF(4) LEVELS_OF(5)
#define ROW(level) {level_##level##_0, level_##level##_1, level_##level##_2, level_##level##_3, level_##level##_4, level_##level##_5}
static unsigned (*const functions[LEVELS][VARIANTS])(unsigned, unsigned, unsigned) = {ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5)};

void next_level(unsigned level, unsigned path);

__attribute__((noinline)) static void walk_here_now(void) {
    struct leakline_registers caller = LEAKLINE_CALLER;
    leakline_unwind(&caller, &seen);
}

void next_level(unsigned level, unsigned path) {
    if (level + 1 == LEVELS) walk_here_now();
    else sum += functions[level + 1][path % VARIANTS](path / VARIANTS, path, level);
    sum++;
}

int main(int count, char **arguments) {
    unsigned every = count > 1 ? (unsigned)atoi(arguments[1]) : 1, walked = 0;
    leakline_unwind_prepare();
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned path = 0; path < PATHS; path += every, walked++) {
            sum += functions[0][path % VARIANTS](path / VARIANTS, path, path >> 3);
            CHECK(seen.flags == 0 && seen.native_count >= 2 * LEVELS + 2);
        }
    }
    struct leakline_unwind_checks *checks = &leakline_unwind_checks;
    fprintf(stderr, "  paths      %8lu walks compared with libgcc, %lu broken, %lu different\n", checks->walks, checks->broken, checks->different);
    CHECK(checks->walks == walked && checks->different == 0 && checks->broken == 0);
    return 0;
}
