/* Libraries that come and go: another one at the same address, and a fork while the loader's lock is held. */
#define _GNU_SOURCE
#include "unwind_tests.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

/* The frame that returns into the library whose function called walk_here: second of the stack. */
static uintptr_t call_in(const char *path, int times) {
    uint64_t before = leakline_libraries_generation();
    void *library = dlopen(path, RTLD_NOW);
    CHECK(library != NULL && leakline_libraries_generation() > before);
    void (*through)(void (*)(void)) = (void (*)(void (*)(void)))(uintptr_t)dlsym(library, "through");
    for (int i = 0; i < times; i++) {
        through(walk_here);
        CHECK(seen.flags == 0 && seen.native_count >= 4);
    }
    CHECK(dlclose(library) == 0);
    return seen.native[0];
}

static void test_same_address(void) {
    int same = 0;
    for (int i = 0; i < 100 * long_run; i++) {
        uintptr_t small = call_in("./libsmall_frame.so", 2), large = call_in("./liblarge_frame.so", 2);
        same += small == large;
    }
    CHECK(same > 50 * long_run); /* else this tested nothing */
}

static volatile bool stop;

static int busy(struct dl_phdr_info *information, size_t size, void *unused) {
    (void)information;
    (void)size;
    (void)unused;
    for (volatile int i = 0; i < 1000; i++) continue;
    return 0;
}

static void *hold_lock(void *unused) {
    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) dl_iterate_phdr(busy, NULL);
    return NULL;
}

/* Return addresses that were not seen before: each child makes rules. */
#define NEW(n)                                                                                                                             \
    __attribute__((noinline)) static void new_##n(void) {                                                                                  \
        walk_here();                                                                                                                       \
        errno = n;                                                                                                                         \
    }
NEW(1) NEW(2) NEW(3) NEW(4) NEW(5) NEW(6) NEW(7) NEW(8)
static void (*const new_functions[])(void) = {new_1, new_2, new_3, new_4, new_5, new_6, new_7, new_8};

static void test_fork(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, hold_lock, NULL) == 0);
    for (int i = 0; i < 40; i++) {
        int status;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            struct leakline_unwind_checks *checks = &leakline_unwind_checks;
            checks->off = i % 2 == 0; /* libgcc takes no lock either on glibc 2.35 and later */
            alarm(20);
            new_functions[i % 8]();
            leakline_libraries_generation();
#ifdef LEAKLINE_OLD_LOADER /* a lock that the child has inherited is given up on: the walk says so, and does not hang */
            if (seen.flags == LEAKLINE_NATIVE_BROKEN && seen.native_count >= 1) seen.flags = 0;
#endif
            _exit(seen.flags == 0 && checks->different == 0 ? 0 : 1);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
}

void test_libraries(void) {
    test_same_address();
    test_fork();
}
