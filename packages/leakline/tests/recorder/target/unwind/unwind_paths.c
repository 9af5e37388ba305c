/* All 46 656 call paths through functions built with six sets of options (path.c), each walked and compared with libgcc: first when its rules
 * are made, then from the table, then as it is expected and as the one before it is expected, which it is not. `unwind_paths [every]`: each path
 * or every n-th. */
#include "unwind_path.h"
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

struct kept {
    uint64_t native[LEAKLINE_NATIVE_FRAMES];
    uint16_t words[LEAKLINE_PATH_WORDS];
    struct leakline_path path;
};

static struct kept *kept, *other;
static unsigned long along, wrong;

static void keep(void) {
    kept->path = (struct leakline_path){seen.generation, kept->native, kept->words, seen.native_count, seen.path_words};
    memcpy(kept->words, seen.path, seen.path_words * sizeof kept->words[0]);
    for (int i = 0; i < seen.native_count; i++) kept->native[i] = seen.native[i];
}

static bool is_same(const struct leakline_origin *expected) {
    return expected->native_count == seen.native_count && expected->flags == seen.flags &&
           memcmp(expected->native, seen.native, seen.native_count * sizeof seen.native[0]) == 0;
}

__attribute__((noinline)) static void walk_here_now(void) {
    struct leakline_registers caller = LEAKLINE_CALLER;
    static uint16_t noted[LEAKLINE_PATH_WORDS];
    static struct leakline_origin expected;
    seen.path = noted;
    leakline_unwind(&caller, &seen);
    if (kept->path.word_count == 0) {
        keep();
        return;
    }
    if (leakline_unwind_along(&caller, &kept->path, &expected)) {
        along++;
        wrong += !is_same(&expected);
    }
    if (other && leakline_unwind_along(&caller, &other->path, &expected)) wrong += !is_same(&expected);
}

void next_level(unsigned level, unsigned path) {
    if (level + 1 == LEVELS) walk_here_now();
    else sum += functions[level + 1][path % VARIANTS](path / VARIANTS, path, level);
    sum++;
}

int main(int count, char **arguments) {
    unsigned every = count > 1 ? (unsigned)atoi(arguments[1]) : 1, walked = 0;
    leakline_unwind_prepare();
    struct kept *all = calloc(PATHS, sizeof *all);
    CHECK(all);
    for (int pass = 0; pass < 3; pass++) {
        for (unsigned path = 0; path < PATHS; path += every, walked++) {
            kept = &all[path], other = path >= every && pass > 0 ? kept - every : NULL;
            sum += functions[0][path % VARIANTS](path / VARIANTS, path, path >> 3);
            CHECK(seen.flags == 0 && seen.native_count >= 2 * LEVELS + 2);
        }
    }
    struct leakline_unwind_checks *checks = &leakline_unwind_checks;
    fprintf(stderr, "  paths      %8lu walks compared with libgcc, %lu broken, %lu different; %lu were expected\n", checks->walks, checks->broken,
            checks->different, along);
    CHECK(checks->walks == walked + along && checks->different == 0 && checks->broken == 0);
    CHECK(wrong == 0 && 2 * along >= walked); /* of three times the first is unexpected; and a few may have no path */
    free(all);
    return 0;
}
