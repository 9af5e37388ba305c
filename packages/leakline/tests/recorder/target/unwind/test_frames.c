/* How many frames are kept, and what a walk leaves alone. */
#include "unwind_tests.h"

static volatile int done;

__attribute__((noinline)) static void deeper(int depth) {
    if (depth == 0) walk_here();
    else deeper(depth - 1);
    done++; /* no tail call */
}

static int by_callback(const void *a, const void *b) {
    (void)a;
    (void)b;
    walk_here();
    return 0;
}

void test_frames(void) {
    deeper(0);
    int base = seen.native_count;
    CHECK(base >= 4 && base < LEAKLINE_NATIVE_FRAMES - 2 && seen.flags == 0);

    deeper(LEAKLINE_NATIVE_FRAMES - base);
    CHECK(seen.native_count == LEAKLINE_NATIVE_FRAMES && seen.flags == 0);
    deeper(LEAKLINE_NATIVE_FRAMES - base + 1);
    CHECK(seen.native_count == LEAKLINE_NATIVE_FRAMES && seen.flags == LEAKLINE_NATIVE_CUT);
    deeper(1000);
    CHECK(seen.native_count == LEAKLINE_NATIVE_FRAMES && seen.flags == LEAKLINE_NATIVE_CUT);

    seen.flags = LEAKLINE_PYTHON_CUT | LEAKLINE_NATIVE_BROKEN; /* the Python part is not the walk's */
    errno = EXDEV;
    deeper(0);
    CHECK(errno == EXDEV && seen.flags == LEAKLINE_PYTHON_CUT && seen.native_count == base);
    seen.flags = 0;

    int pair[2] = {1, 2};
    qsort(pair, 2, sizeof pair[0], by_callback);
    CHECK(seen.native_count > base - 1 && seen.flags == 0);
    CHECK(seen.generation == leakline_libraries_generation());
}
