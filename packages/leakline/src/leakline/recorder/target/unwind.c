/* The calling thread's native frames: leakline_unwind of origin.h.
 *
 * Each frame's rule is one cached word, by which the next frame is found with two loads. What such a rule cannot say is walked again from
 * the start with all registers (unwind_registers.c): odd rules, signal frames, stacks that go on elsewhere.
 */
#define _GNU_SOURCE
#include "origin.h"
#include "unwind_cache.h"
#include "unwind_check.h"
#include "unwind_libraries.h"
#include "unwind_memory.h"
#include "unwind_registers.h"
#include "unwind_rules.h"

#include <errno.h>

#define LIKELY(condition) __builtin_expect(condition, 1)

static inline uintptr_t strip(uintptr_t pc) {
#if defined(__aarch64__)
    register uintptr_t x30 __asm__("x30") = pc;
    __asm__("hint #7" : "+r"(x30)); /* xpaclri: removes a signature, does nothing where there are none */
    return x30;
#else
    return pc;
#endif
}

/* A word at or above `sp`. */
static inline bool load(struct leakline_stack *stack, uintptr_t sp, uintptr_t address, uintptr_t *word) {
    if (!LIKELY(leakline_on_stack(stack, sp, address)) && (address < sp || !leakline_stack_reach(stack, address))) return false;
    *word = leakline_load(address);
    return true;
}

/* Replaces a frame by its caller; false where the rule does not fit what is on the stack. */
static inline bool step(struct leakline_registers *frame, uint64_t rule, struct leakline_stack *stack) {
    uintptr_t offset = (uintptr_t)leakline_rule_cfa_offset(rule), cfa, pc, fp = frame->fp;
    switch (leakline_rule_kind(rule)) {
    case LEAKLINE_RULE_SP: cfa = frame->sp + offset; break;
    case LEAKLINE_RULE_FP: cfa = frame->fp + offset; break;
    default:
        if (!load(stack, frame->sp, frame->fp + offset, &cfa)) return false;
    }
    if (cfa % sizeof(uintptr_t) != 0) return false;
    /* Below the CFA and not below sp: so the CFA is above sp, and the walk comes to an end. */
    if (!load(stack, frame->sp, cfa + (uintptr_t)leakline_rule_ra_offset(rule), &pc)) return false;
    if (leakline_rule_fp(rule) != LEAKLINE_FP_SAME) {
        uintptr_t base = leakline_rule_fp(rule) == LEAKLINE_FP_AT_CFA ? cfa : frame->fp;
        if (!load(stack, frame->sp, base + (uintptr_t)leakline_rule_fp_offset(rule), &fp)) return false;
    }
    *frame = (struct leakline_registers){.pc = strip(pc), .sp = cfa, .fp = fp};
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
static bool walk(const struct leakline_registers *from, struct leakline_origin *origin) {
    struct leakline_registers frame = *from;
    struct leakline_stack stack;
    uint64_t generation = origin->generation;
    leakline_stack_at(frame.sp, &stack);
    for (unsigned count = 0; frame.pc != 0; count++) {
        uint64_t rule = leakline_rule(frame.pc, generation);
        enum leakline_rule_kind kind = leakline_rule_kind(rule);
        if (count == LEAKLINE_NATIVE_FRAMES) {
            if (kind > LEAKLINE_RULE_END) return false;
            origin->flags |= LEAKLINE_NATIVE_CUT;
            return true;
        }
        origin->native[count] = frame.pc;
        origin->native_count = (uint16_t)(count + 1);
        if (LIKELY(kind <= LEAKLINE_RULE_LOAD)) {
            if (!step(&frame, rule, &stack)) return false;
            continue;
        }
        if (kind == LEAKLINE_RULE_NONE) return end_unknown(frame.pc, count, origin);
        return kind == LEAKLINE_RULE_END;
    }
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
    if (!walk(from, origin)) leakline_walk_registers(from, origin);
    leakline_unwind_check(from, origin);
    errno = error;
}
