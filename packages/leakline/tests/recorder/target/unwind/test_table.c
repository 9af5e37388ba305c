/* The table of rules itself: threads that ask for the same few addresses while generations pass always get the rule of their own address. */
#include "unwind_tests.h"
#include "unwind_cache.h"
#include "unwind_libraries.h"
#include "unwind_rules.h"

#include <pthread.h>
#include <stdatomic.h>

#ifdef __SANITIZE_THREAD__
enum { LOOKUPS = 4000 };
#else
enum { LOOKUPS = 40000 };
#endif
enum { THREADS = 8, ADDRESSES = 64 };

static uintptr_t addresses[ADDRESSES];
static uint64_t rules[ADDRESSES];
static _Atomic uint64_t generation;
static _Atomic int wrong;

static void *look_up(void *seed) {
    uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < LOOKUPS * long_run; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        unsigned which = (unsigned)(state >> 40) % ADDRESSES;
        uint64_t now = state >> 60 == 0 ? atomic_fetch_add(&generation, 1) : atomic_load(&generation);
        uint64_t rule = leakline_rule(addresses[which], now);
        if (rule == LEAKLINE_RULE_NONE && !leakline_find_library_final()) continue; /* the loader was busy, and nothing is kept */
        if (rule != rules[which]) wrong++;
    }
    return NULL;
}

void test_table(void) {
    pthread_t threads[THREADS];
    int count = 0;
    for (uintptr_t pc = (uintptr_t)qsort; count < ADDRESSES; pc++) { /* return addresses in libc, neighbours of different rules */
        if (leakline_after_call(pc) != 1) continue;
        rules[count] = leakline_make_rule(pc);
        addresses[count] = pc;
        count += leakline_rule_kind(rules[count]) <= LEAKLINE_RULE_LOAD && (count == 0 || rules[count] != rules[count - 1]);
    }
    generation = leakline_libraries_generation();
    for (uintptr_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, look_up, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(wrong == 0);
}
