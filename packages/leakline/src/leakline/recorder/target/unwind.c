/* The calling thread's native frames: leakline_unwind of origin.h.
 *
 * Each frame's rule is one cached word, by which the next frame is found with two loads. What such a rule cannot say is walked again from
 * the start with all registers (unwind_registers.c): odd rules, signal frames, stacks that go on elsewhere. A walk that was made before from
 * the same place, over the same words, is not made again (unwind_known.c).
 */
#define _GNU_SOURCE
#include "origin.h"
#include "unwind_cache.h"
#include "unwind_check.h"
#include "unwind_known.h"
#include "unwind_libraries.h"
#include "unwind_memory.h"
#include "unwind_path.h"
#include "unwind_registers.h"
#include "unwind_rules.h"

#include <errno.h>

#define LIKELY(condition) __builtin_expect(condition, 1)

/* A word at or above `sp`. `last`: the highest that is known to be on the stack; not below sp - 8, as sp is just behind a word that was read. */
static inline bool load(struct leakline_stack *stack, uintptr_t *last, uintptr_t sp, uintptr_t address, uintptr_t *word) {
    if (!LIKELY(address >= sp && address <= *last)) {
        if (address < sp || !leakline_stack_reach(stack, address)) return false;
        *last = stack->high - sizeof(uintptr_t);
    }
    *word = leakline_load(address);
    return true;
}

/* --- what a walk depends on (unwind_known.h); nothing of it is compiled where `walked` is NULL */

static inline uint32_t place_of(uintptr_t first, uintptr_t address, struct leakline_walked *walked) {
    if (address - first >= LEAKLINE_NO_PLACE) walked->fits = false;
    return (uint32_t)(address - first);
}

/* The frame pointer is used: it counts from now on, once. */
static inline void use_pointer(struct leakline_walked *walked, uintptr_t fp) {
    if (walked->pointer_place == LEAKLINE_NO_PLACE) return;
    if (walked->pointers == LEAKLINE_KNOWN_POINTERS) {
        walked->fits = false;
        return;
    }
    walked->pointer_places[walked->pointers] = walked->pointer_place;
    walked->pointer_values[walked->pointers++] = fp;
    walked->pointer_place = LEAKLINE_NO_PLACE;
}

static inline void use_loaded(struct leakline_walked *walked, uint32_t place, uintptr_t value) {
    uint32_t pending = walked->pointer_place;
    walked->pointer_place = place;
    use_pointer(walked, value);
    walked->pointer_place = pending;
}

static inline void note_frame(struct leakline_walked *walked, uint32_t place, uintptr_t value) {
    if (walked->frames == LEAKLINE_KNOWN_FRAMES) {
        walked->fits = false;
        return;
    }
    walked->frame_places[walked->frames] = place;
    walked->frame_values[walked->frames++] = value;
}

static inline void begin_noting(struct leakline_walked *walked, const struct leakline_registers *from) {
    walked->sp = from->sp;
    walked->fp = from->fp;
    walked->frames = walked->pointers = 0;
    walked->fits = walked->first_pointer = true;
    walked->uses_first_pointer = false;
    walked->pointer_place = LEAKLINE_NO_PLACE;
}

/* --- the walk */

/* Replaces a frame by its caller; false where the rule does not fit what is on the stack. */
static inline __attribute__((always_inline)) bool step(struct leakline_registers *frame, uint64_t rule, struct leakline_stack *stack,
                                                       uintptr_t *last, uintptr_t first, struct leakline_walked *walked) {
    uintptr_t offset = (uintptr_t)leakline_rule_cfa_offset(rule), cfa, pc, fp = frame->fp;
    enum leakline_rule_kind kind = leakline_rule_kind(rule);
    bool by_pointer = kind != LEAKLINE_RULE_SP || leakline_rule_fp(rule) == LEAKLINE_FP_AT_FP;
    if (walked && by_pointer) {
        walked->uses_first_pointer |= walked->first_pointer;
        use_pointer(walked, frame->fp);
    }
    if (kind == LEAKLINE_RULE_SP) cfa = frame->sp + offset;
    else if (kind == LEAKLINE_RULE_FP) cfa = frame->fp + offset;
    else {
        if (!load(stack, last, frame->sp, frame->fp + offset, &cfa)) return false;
        if (walked) use_loaded(walked, place_of(first, frame->fp + offset, walked), cfa);
    }
    if (cfa % sizeof(uintptr_t) != 0) return false;
    /* Below the CFA and not below sp: so the CFA is above sp, and the walk comes to an end. */
    uintptr_t at = cfa + (uintptr_t)leakline_rule_ra_offset(rule);
    if (!load(stack, last, frame->sp, at, &pc)) return false;
    if (walked) note_frame(walked, place_of(first, at, walked), leakline_strip(pc));
    if (leakline_rule_fp(rule) != LEAKLINE_FP_SAME) {
        at = (leakline_rule_fp(rule) == LEAKLINE_FP_AT_CFA ? cfa : frame->fp) + (uintptr_t)leakline_rule_fp_offset(rule);
        if (!load(stack, last, frame->sp, at, &fp)) return false;
        if (walked) {
            walked->first_pointer = false;
            walked->pointer_place = place_of(first, at, walked);
        }
    }
    frame->pc = leakline_strip(pc);
    frame->sp = cfa;
    frame->fp = fp;
    return true;
}

/* A frame that nothing describes ends the stack. False: it is a signal's. */
static bool end_unknown(uintptr_t pc, unsigned count, struct leakline_origin *origin) {
    if (leakline_is_signal_return(pc)) return false;
    if (count > 0 && leakline_after_call(pc) != 1) origin->native_count = (uint16_t)count; /* not even a frame */
    origin->flags |= LEAKLINE_NATIVE_BROKEN;
    return true;
}

/* Walks by cached rules. False where that is not enough. */
static inline __attribute__((always_inline)) bool walk(const struct leakline_registers *from, struct leakline_stack *stack,
                                                       struct leakline_origin *origin, struct leakline_walked *walked) {
    struct leakline_registers frame = *from;
    const struct leakline_rules rules = leakline_rules_of(origin->generation);
    uintptr_t last = stack->high - stack->low >= sizeof(uintptr_t) ? stack->high - sizeof(uintptr_t) : 0; /* 0: nothing */
    unsigned count = 0;
    for (; frame.pc != 0; count++) {
        uint64_t rule = leakline_rule_quick(&rules, frame.pc);
        enum leakline_rule_kind kind = leakline_rule_kind(rule);
        if (count == LEAKLINE_NATIVE_FRAMES) {
            if (kind > LEAKLINE_RULE_END) return false;
            origin->flags |= LEAKLINE_NATIVE_CUT;
            break;
        }
        origin->native[count] = frame.pc;
        if (LIKELY(kind <= LEAKLINE_RULE_LOAD)) {
            if (!step(&frame, rule, stack, &last, from->sp, walked)) return false;
            continue;
        }
        count++;
        if (kind == LEAKLINE_RULE_END) break;
        if (kind != LEAKLINE_RULE_NONE) return false;
        origin->native_count = (uint16_t)count;
        return end_unknown(frame.pc, count - 1, origin);
    }
    origin->native_count = (uint16_t)count;
    return true;
}

static bool walk_plainly(const struct leakline_registers *from, struct leakline_stack *stack, struct leakline_origin *origin) {
    return walk(from, stack, origin, NULL);
}

static __attribute__((noinline)) bool walk_and_note(const struct leakline_registers *from, struct leakline_stack *stack,
                                                    struct leakline_origin *origin, bool keep) {
    struct leakline_walked walked; /* 0.9 KB, which no foreign stack has to have room for */
    begin_noting(&walked, from);
    if (!walk(from, stack, origin, &walked)) return false;
    if (keep && walked.fits && !(origin->flags & LEAKLINE_NATIVE_BROKEN)) leakline_known_keep(from, &walked, origin);
    if (origin->path) origin->path_words = leakline_path_of(&walked, origin, origin->path);
    return true;
}

void leakline_unwind_prepare(void) {
    int error = errno;
    leakline_libraries_prepare();
    leakline_memory_prepare();
    leakline_rules_prepare();
    errno = error;
}

void leakline_unwind(const struct leakline_registers *from, struct leakline_origin *origin) {
    int error = errno;
    origin->native_count = 0;
    origin->flags &= ~(uint32_t)(LEAKLINE_NATIVE_CUT | LEAKLINE_NATIVE_BROKEN);
    origin->generation = leakline_libraries_generation();
    struct leakline_stack stack;
    leakline_stack_at(from->sp, &stack);
    origin->path_words = 0;
    enum leakline_known known = leakline_known_walk(from, &stack, origin);
    if (known != LEAKLINE_KNOWN) {
        bool note = known == LEAKLINE_TO_NOTE || (stack.own && origin->path);
        bool walked = note ? walk_and_note(from, &stack, origin, known == LEAKLINE_TO_NOTE) : walk_plainly(from, &stack, origin);
        if (!walked) leakline_walk_registers(from, origin);
    }
    leakline_unwind_check(from, origin);
    errno = error;
}
