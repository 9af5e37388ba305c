/* Many threads that find and make rules at once, while libraries come and go and signals walk in between. */
#define _GNU_SOURCE
#include "unwind_tests.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#ifdef __SANITIZE_THREAD__
enum { WALKS = 100 };
#else
enum { WALKS = 500 };
#endif
enum { THREADS = 16 };

static _Atomic int running, incomplete;
static __thread volatile int done;

static void next(uint64_t path, int depth);

#define LEVEL(n, room_size)                                                                                                                \
    __attribute__((noinline)) static void level_##n(uint64_t path, int depth) {                                                            \
        volatile char room[room_size];                                                                                                     \
        room[0] = n;                                                                                                                       \
        next(path, depth);                                                                                                                 \
        done += room[0];                                                                                                                   \
    }
LEVEL(0, 8) LEVEL(1, 40) LEVEL(2, 72) LEVEL(3, 200) LEVEL(4, 1000) LEVEL(5, 24) LEVEL(6, 5000) LEVEL(7, 120)
static void (*const levels[])(uint64_t, int) = {level_0, level_1, level_2, level_3, level_4, level_5, level_6, level_7};

__attribute__((noinline)) static void next(uint64_t path, int depth) {
    if (depth == 0) walk_here();
    else levels[path % 8](path / 8, depth - 1);
    done++;
}

static void handle(int number) {
    (void)number;
    struct leakline_origin kept = seen;
    walk_here();
    seen = kept;
}

static void *walk_paths(void *seed) {
    uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < WALKS * long_run; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        next(state >> 20, 1 + (int)(state >> 60) % 12);
        if (seen.flags != 0) incomplete++;
        if (i % 50 == 25) raise(SIGUSR1);
    }
    running--;
    return NULL;
}

void test_threads(void) {
    pthread_t threads[THREADS];
    struct sigaction action = {.sa_handler = handle}, before;
    CHECK(sigaction(SIGUSR1, &action, &before) == 0);
    running = THREADS;
    for (uintptr_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, walk_paths, (void *)i) == 0);
    while (running > 0) { /* new generations all the time */
        void *library = dlopen("./libsmall_frame.so", RTLD_NOW);
        CHECK(library != NULL && dlclose(library) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(incomplete == 0 && sigaction(SIGUSR1, &before, NULL) == 0);
}
