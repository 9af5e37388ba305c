/* The table of known walks (unwind_known.h). Entries are shared by all threads, each under a sequence lock: a thread that finds one being
 * written, also by what its own signal handler interrupted, walks. Threads seldom meet there: their stacks differ. */
#define _GNU_SOURCE
#include "unwind_known.h"
#include "unwind_registers.h"

#include <stdatomic.h>

enum { ENTRY_BITS = 9, ENTRIES = 1 << ENTRY_BITS, OFTEN = 4, SELDOM = 16, STRANGE_BITS = 6, STRANGE = 64, FAMILIAR = 8 };

struct words {
    _Atomic uintptr_t frame_values[LEAKLINE_KNOWN_FRAMES];
    _Atomic uint32_t frame_places[LEAKLINE_KNOWN_FRAMES];
    _Atomic uint32_t pointer_places[LEAKLINE_KNOWN_POINTERS];
    _Atomic uintptr_t pointer_values[LEAKLINE_KNOWN_POINTERS];
} __attribute__((aligned(64)));

/* Apart from the words, so that a look that leads to nothing touches few pages. */
struct entry {
    atomic_uint sequence;     /* odd: being written */
    _Atomic uint32_t failures; /* since it was right last */
    _Atomic uintptr_t pc, sp, first_pointer;
    _Atomic uint64_t generation;
    _Atomic uint32_t life; /* of the recording, whose number `stack` is */
    _Atomic uint32_t stack;
    _Atomic uint16_t frames, pointers, native_count; /* frames 0: the place alone */
    _Atomic uint8_t flags;
    _Atomic bool uses_first_pointer;
} __attribute__((aligned(64)));

static struct words words[ENTRIES];
static struct entry entries[ENTRIES];
static _Atomic uint32_t life = 1;

#define LIKELY(condition) __builtin_expect(condition, 1)
#define GET(what) atomic_load_explicit(&(what), memory_order_relaxed)
#define SET(what, value) atomic_store_explicit(&(what), value, memory_order_relaxed)

static inline struct words *words_of(const struct entry *entry) { return &words[entry - entries]; }

static inline struct entry *entry_of(uintptr_t pc, uintptr_t sp) {
    return &entries[((uint64_t)pc ^ (uint64_t)sp << 20) * 0x9e3779b97f4a7c15u >> (64 - ENTRY_BITS)];
}

/* --- writing: who does not get the entry at once lets it be */

static bool begin_entry(struct entry *entry, unsigned sequence) {
    if (sequence & 1 || !atomic_compare_exchange_strong_explicit(&entry->sequence, &sequence, sequence + 1, memory_order_acquire, memory_order_relaxed))
        return false;
    atomic_thread_fence(memory_order_release);
    return true;
}

static void end_entry(struct entry *entry, unsigned sequence) { atomic_store_explicit(&entry->sequence, sequence + 2, memory_order_release); }

static void claim(struct entry *entry, const struct leakline_registers *from, uint64_t generation, uint32_t now) {
    unsigned sequence = GET(entry->sequence);
    if (!begin_entry(entry, sequence)) return;
    SET(entry->pc, from->pc);
    SET(entry->sp, from->sp);
    SET(entry->generation, generation);
    SET(entry->life, now);
    SET(entry->frames, 0);
    SET(entry->failures, 0);
    end_entry(entry, sequence);
}

void leakline_known_keep(const struct leakline_registers *from, const struct leakline_walked *walked, struct leakline_origin *origin) {
    struct entry *entry = entry_of(from->pc, from->sp);
    unsigned sequence = GET(entry->sequence);
    if (!begin_entry(entry, sequence)) return;
    SET(entry->pc, from->pc);
    SET(entry->sp, from->sp);
    SET(entry->first_pointer, from->fp);
    SET(entry->generation, origin->generation);
    SET(entry->life, origin->life);
    SET(entry->stack, 0);
    SET(entry->native_count, origin->native_count);
    SET(entry->flags, (uint8_t)(origin->flags & LEAKLINE_NATIVE_CUT));
    SET(entry->uses_first_pointer, walked->uses_first_pointer);
    struct words *known = words_of(entry);
    for (uint32_t i = 0; i < walked->frames; i++) {
        SET(known->frame_values[i], walked->frame_values[i]);
        SET(known->frame_places[i], walked->frame_places[i]);
    }
    for (uint32_t i = 0; i < walked->pointers; i++) {
        SET(known->pointer_values[i], walked->pointer_values[i]);
        SET(known->pointer_places[i], walked->pointer_places[i]);
    }
    SET(entry->frames, (uint16_t)walked->frames);
    SET(entry->pointers, (uint16_t)walked->pointers);
    end_entry(entry, sequence);
    origin->walk = entry;
    origin->walk_sequence = sequence + 2;
}

void leakline_unwind_numbered(const struct leakline_origin *origin, uint32_t stack) {
    struct entry *entry = origin->walk;
    if (entry == NULL || !begin_entry(entry, origin->walk_sequence)) return;
    SET(entry->stack, stack);
    end_entry(entry, origin->walk_sequence);
}

void leakline_unwind_forget(void) { atomic_fetch_add(&life, 1); }

/* --- reading */

/* Whether all words are where they were. What is read may be torn, and is proved afterwards: so no place is believed. */
static inline bool is_same(struct entry *entry, uintptr_t sp, uintptr_t span, struct leakline_origin *origin) {
    struct words *known = words_of(entry);
    unsigned frames = GET(entry->frames), pointers = GET(entry->pointers);
    if (frames > LEAKLINE_KNOWN_FRAMES || pointers > LEAKLINE_KNOWN_POINTERS) return false;
    for (unsigned i = 0; i < frames; i++) {
        uint32_t place = GET(known->frame_places[i]);
        uintptr_t value = GET(known->frame_values[i]);
        if (place > span || leakline_strip(leakline_load(sp + place)) != value) return false;
        if (i + 1 < LEAKLINE_NATIVE_FRAMES) origin->native[i + 1] = value;
    }
    for (unsigned i = 0; i < pointers; i++) {
        uint32_t place = GET(known->pointer_places[i]);
        if (place > span || leakline_load(sp + place) != GET(known->pointer_values[i])) return false;
    }
    return true;
}

/* A place where the words differ again and again is seldom worth a look. */
static inline bool is_worth_it(struct entry *entry) {
    uint32_t failures = GET(entry->failures);
    if (LIKELY(failures <= OFTEN)) return true;
    SET(entry->failures, failures + 1);
    return failures % SELDOM == 0;
}

/* Nor is the table for a return address from which most of a thread's last walks were unknown: an entry that is not in the cache takes as long
 * as a few frames. By a hash of the address: walks that were unknown, less some for each that was known. */
static __thread uint8_t strange[1 << STRANGE_BITS];
static __thread uint32_t turn;

static inline uint8_t *strange_of(uintptr_t pc) { return &strange[(uint64_t)pc * 0x9e3779b97f4a7c15u >> (64 - STRANGE_BITS)]; }

static inline bool is_thread_worth_it(uintptr_t pc) { return LIKELY(*strange_of(pc) < STRANGE) || turn % SELDOM == 0; }

bool leakline_unwind_varies(uintptr_t pc) { return !LIKELY(*strange_of(pc) < STRANGE) && ++turn % SELDOM != 0; }

static inline enum leakline_known unknown(uintptr_t pc, enum leakline_known known) {
    uint8_t *walks = strange_of(pc);
    *walks = (uint8_t)(*walks + (*walks < 2 * STRANGE));
    return known;
}

static inline void known(uintptr_t pc) {
    uint8_t *walks = strange_of(pc);
    *walks = (uint8_t)(LIKELY(*walks < FAMILIAR) ? 0 : *walks - FAMILIAR);
}

enum leakline_known leakline_known_walk(const struct leakline_registers *from, const struct leakline_stack *stack, struct leakline_origin *origin) {
    origin->walk = NULL;
    origin->stack = 0;
    origin->life = GET(life);
    if (!stack->own || stack->high - from->sp < sizeof(uintptr_t) || from->pc == 0 || !is_thread_worth_it(from->pc)) return LEAKLINE_UNKNOWN;
    struct entry *entry = entry_of(from->pc, from->sp);
    unsigned sequence = atomic_load_explicit(&entry->sequence, memory_order_acquire);
    if (GET(entry->pc) != from->pc || GET(entry->sp) != from->sp || GET(entry->generation) != origin->generation ||
        GET(entry->life) != origin->life) {
        claim(entry, from, origin->generation, origin->life);
        return unknown(from->pc, LEAKLINE_UNKNOWN);
    }
    if (GET(entry->frames) == 0) return unknown(from->pc, LEAKLINE_TO_NOTE);
    if (!is_worth_it(entry)) return unknown(from->pc, LEAKLINE_UNKNOWN);
    if ((GET(entry->uses_first_pointer) && GET(entry->first_pointer) != from->fp) ||
        !is_same(entry, from->sp, stack->high - from->sp - sizeof(uintptr_t), origin)) {
        SET(entry->failures, GET(entry->failures) + 1);
        return unknown(from->pc, LEAKLINE_TO_NOTE);
    }
    uint16_t count = GET(entry->native_count), flags = GET(entry->flags);
    uint32_t number = GET(entry->stack);
    atomic_thread_fence(memory_order_acquire);
    if (sequence & 1 || GET(entry->sequence) != sequence) return LEAKLINE_UNKNOWN;
    origin->native[0] = from->pc;
    origin->native_count = count;
    origin->flags |= flags;
    origin->walk = entry;
    origin->walk_sequence = sequence;
    origin->stack = number;
    if (!LIKELY(GET(entry->failures) == 0)) SET(entry->failures, 0);
    known(from->pc);
    return LEAKLINE_KNOWN;
}
