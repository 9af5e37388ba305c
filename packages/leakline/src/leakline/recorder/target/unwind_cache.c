/* The table of rules (unwind_cache.h). How it is read without locks is told there. */
#define _GNU_SOURCE
#include "unwind_cache.h"
#include "system_calls.h"
#include "unwind_libraries.h"
#include "unwind_rules.h"

#include <sys/mman.h>

#ifndef LEAKLINE_CACHE_TAGS
#define LEAKLINE_CACHE_TAGS 0xffff
#endif
enum { BUCKETS = 1 << LEAKLINE_CACHE_BITS, WAYS = LEAKLINE_CACHE_WAYS, TAG_BITS = LEAKLINE_CACHE_TAG_BITS, TAG_MASK = (1 << TAG_BITS) - 1,
       LAST_TAG = LEAKLINE_CACHE_TAGS };
#define TAKEN ((uint64_t)1) /* being written; no key: its address would be 0 */

struct table {
    struct leakline_rule_bucket front[1 << LEAKLINE_CACHE_FRONT_BITS];
    struct leakline_rule_bucket buckets[BUCKETS];
    /* Generation of tag 1. Written before the table is published. Atomic, as its address may have been another thread's a moment ago: who
     * comes second with a table unmaps it, and the kernel gives its pages, zeroed, to the next who asks, an order that no sanitizer sees. */
    _Atomic uint64_t first;
};

static struct table first_table __attribute__((aligned(64)));
static _Atomic(struct table *) current = &first_table;

static inline struct leakline_rule_bucket *bucket_of(struct table *table, uintptr_t pc) {
    return &table->buckets[(uint64_t)pc * 0x9e3779b97f4a7c15u >> (64 - LEAKLINE_CACHE_BITS)];
}

/* The second choice of each bucket. */
static inline struct leakline_rule_bucket *neighbour(struct table *table, struct leakline_rule_bucket *bucket) {
    return &table->buckets[(bucket - table->buckets) ^ 1];
}

static bool insert(struct leakline_rule_bucket *bucket, uint64_t key, uint64_t rule) {
    for (unsigned i = 0; i < WAYS; i++) {
        struct leakline_rule_slot *slot = &bucket->slots[i];
        uint64_t old = atomic_load_explicit(&slot->key, memory_order_relaxed);
        if (old == key) return true;
        if (old == TAKEN || (old & TAG_MASK) >= (key & TAG_MASK)) continue;
        if (!atomic_compare_exchange_strong_explicit(&slot->key, &old, TAKEN, memory_order_acquire, memory_order_relaxed)) continue;
        /* Release: a reader that sees the new rule sees the slot taken, or what came after. */
        atomic_store_explicit(&slot->rule, rule, memory_order_release);
        atomic_store_explicit(&slot->key, key, memory_order_release);
        return true;
    }
    return false;
}

/* A table whose first tag is `generation`, in place of `old`; NULL if there is no memory. */
static struct table *renew(struct table *old, uint64_t generation) {
    long address = leakline_call6(SYS_mmap, 0, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address < 0 && address > -4096) return NULL;
    struct table *table = (struct table *)address;
    atomic_store_explicit(&table->first, generation, memory_order_relaxed);
    if (atomic_compare_exchange_strong(&current, &old, table)) return table;
    leakline_call3(SYS_munmap, address, sizeof(struct table), 0);
    return old;
}

static __attribute__((noinline)) uint64_t make(struct table *table, uintptr_t pc, uint64_t key) {
    uint64_t rule = leakline_make_rule(pc);
    struct leakline_rule_bucket *bucket = bucket_of(table, pc);
    if (leakline_rule_kind(rule) == LEAKLINE_RULE_NONE && !leakline_find_library_final()) return rule;
    if (!insert(&table->front[leakline_rule_front_number(pc)], key, rule) && !insert(bucket, key, rule)) insert(neighbour(table, bucket), key, rule);
    return rule;
}

/* The table in which `generation` has a tag; NULL: there is none. */
static struct table *table_of(uint64_t generation, uint64_t *tag) {
    struct table *table = atomic_load_explicit(&current, memory_order_acquire);
    uint64_t first = atomic_load_explicit(&table->first, memory_order_relaxed);
    if (generation - first >= LAST_TAG) {
        if (generation > first && (table = renew(table, generation)) != NULL) first = atomic_load_explicit(&table->first, memory_order_relaxed);
        if (table == NULL || generation - first >= LAST_TAG) return NULL;
    }
    *tag = generation - first + 1;
    return table;
}

struct leakline_rules leakline_rules_of(uint64_t generation) {
    struct leakline_rules rules = {.generation = generation};
    struct table *table = table_of(generation, &rules.tag);
    if (table != NULL) rules.front = table->front;
    return rules;
}

uint64_t leakline_rule(uintptr_t pc, uint64_t generation) {
    uint64_t tag, rule;
    struct table *table = table_of(generation, &tag);
    if (table == NULL || pc >> (64 - TAG_BITS) != 0) return leakline_make_rule(pc);
    uint64_t key = (uint64_t)pc << TAG_BITS | tag;
    struct leakline_rule_bucket *bucket = bucket_of(table, pc);
    if (leakline_rule_find(&table->front[leakline_rule_front_number(pc)], key, &rule) || leakline_rule_find(bucket, key, &rule) ||
        leakline_rule_find(neighbour(table, bucket), key, &rule)) return rule;
    return make(table, pc, key);
}
