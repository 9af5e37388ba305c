/* The rules found so far, by return address (unwind_rules.h): a table of fixed size that threads and signal handlers share without locks.
 *
 * A slot is two words: a key of 48 bits of address and 16 of tag (how many loads since the table was made), and a rule. Within a tag a slot is
 * written once; it is taken again only for a later tag. So a reader that sees its own key before and after it read the rule has read the
 * rule of that key: between the two the slot could only have gone to a later tag, from which no writer brings it back. Old tags need no
 * clearing: nobody asks for them. When all tags are used up a new table is mapped; the old one stays mapped, for readers who are still in it.
 * Where a bucket is full, the rule is made anew each time: slower, never wrong.
 */
#ifndef LEAKLINE_UNWIND_CACHE_H
#define LEAKLINE_UNWIND_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef LEAKLINE_CACHE_BITS /* smaller in tests of a full table */
#define LEAKLINE_CACHE_BITS 14
#endif
/* The first rules go to a few buckets in front of the others: those of most programs lie on four pages then, and not on a page each. */
enum { LEAKLINE_CACHE_FRONT_BITS = LEAKLINE_CACHE_BITS < 8 ? LEAKLINE_CACHE_BITS - 1 : 8, LEAKLINE_CACHE_WAYS = 4, LEAKLINE_CACHE_TAG_BITS = 16 };

struct leakline_rule_slot {
    _Atomic uint64_t key, rule;
};

struct leakline_rule_bucket {
    struct leakline_rule_slot slots[LEAKLINE_CACHE_WAYS]; /* a cache line */
};

/* The table as one walk sees it. */
struct leakline_rules {
    struct leakline_rule_bucket *front; /* NULL: ask leakline_rule() */
    uint64_t tag, generation;
};

struct leakline_rules leakline_rules_of(uint64_t generation);
/* The rule for `pc` while `generation` (leakline_libraries_generation, read when the walk began) is current; made where it is not known. */
uint64_t leakline_rule(uintptr_t pc, uint64_t generation);

static inline size_t leakline_rule_front_number(uintptr_t pc) { return (uint64_t)pc * 0x9e3779b97f4a7c15u >> (64 - LEAKLINE_CACHE_FRONT_BITS); }

static inline bool leakline_rule_find(struct leakline_rule_bucket *bucket, uint64_t key, uint64_t *rule) {
    for (unsigned i = 0; i < LEAKLINE_CACHE_WAYS; i++) {
        struct leakline_rule_slot *slot = &bucket->slots[i];
        if (atomic_load_explicit(&slot->key, memory_order_acquire) != key) continue;
        *rule = atomic_load_explicit(&slot->rule, memory_order_acquire);
        return atomic_load_explicit(&slot->key, memory_order_relaxed) == key;
    }
    return false;
}

/* The same as leakline_rule(), without a call where the rule is one of the first. */
static inline uint64_t leakline_rule_quick(const struct leakline_rules *rules, uintptr_t pc) {
    uint64_t rule;
    if (rules->front != NULL && pc >> (64 - LEAKLINE_CACHE_TAG_BITS) == 0 &&
        leakline_rule_find(&rules->front[leakline_rule_front_number(pc)], (uint64_t)pc << LEAKLINE_CACHE_TAG_BITS | rules->tag, &rule))
        return rule;
    return leakline_rule(pc, rules->generation);
}

#endif
