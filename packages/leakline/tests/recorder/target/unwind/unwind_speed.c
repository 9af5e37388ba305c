/* What a walk of 15 frames costs beside libgcc's _Unwind_Backtrace: `unwind_speed [walks] [ours|libgcc]`, interleaved if neither is named. */
#define _GNU_SOURCE
#include "../../native/tests.h"
#include "origin.h"

#include <time.h>
#include <unwind.h>

enum { FRAMES = 15, ROUNDS = 9 };

static struct leakline_origin origin;
static volatile unsigned sum;
static int walks = 100000;
static bool with_libgcc;

static _Unwind_Reason_Code count_frame(struct _Unwind_Context *context, void *count) {
    sum += (unsigned)_Unwind_GetIP(context);
    return ++*(int *)count == LEAKLINE_NATIVE_FRAMES ? _URC_END_OF_STACK : _URC_NO_REASON;
}

__attribute__((noinline)) static void ours(void) {
    struct leakline_registers caller = LEAKLINE_CALLER;
    for (int i = 0; i < walks; i++) leakline_unwind(&caller, &origin);
}

__attribute__((noinline)) static void libgcc(void) {
    for (int i = 0; i < walks; i++) {
        int count = 0;
        _Unwind_Backtrace(count_frame, &count);
    }
}

__attribute__((noinline)) static void deeper(int depth) {
    if (depth > 0) deeper(depth - 1);
    else if (with_libgcc) libgcc();
    else ours();
    sum++;
}

static double run(bool libgcc_now, int depth) {
    struct timespec from, to;
    with_libgcc = libgcc_now;
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from) == 0);
    deeper(depth);
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to) == 0);
    return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / walks;
}

static int ascending(const void *a, const void *b) { return *(const double *)a > *(const double *)b ? 1 : -1; }

int main(int count, char **arguments) {
    leakline_unwind_prepare();
    int wanted = walks;
    walks = 1;
    run(false, 0);
    int depth = FRAMES - origin.native_count;
    run(false, depth);
    run(true, depth);
    CHECK(origin.native_count == FRAMES && origin.flags == 0);
    walks = count > 1 ? atoi(arguments[1]) : wanted;
    if (count > 2) {
        run(strcmp(arguments[2], "libgcc") == 0, depth);
        return 0;
    }
    double mine[ROUNDS], theirs[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        mine[round] = run(false, depth);
        theirs[round] = run(true, depth);
    }
    qsort(mine, ROUNDS, sizeof mine[0], ascending);
    qsort(theirs, ROUNDS, sizeof theirs[0], ascending);
    printf("15 frames, CPU time of one walk (median of %d, interleaved): %.0f ns, _Unwind_Backtrace %.0f ns, ratio %.1f\n", ROUNDS, mine[ROUNDS / 2],
           theirs[ROUNDS / 2], theirs[ROUNDS / 2] / mine[ROUNDS / 2]);
    return 0;
}
