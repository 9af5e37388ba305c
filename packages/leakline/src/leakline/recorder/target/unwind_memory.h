/* Reads of the target's stack that never fault: which memory around a stack pointer is readable. */
#ifndef LEAKLINE_UNWIND_MEMORY_H
#define LEAKLINE_UNWIND_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* [low, high) is readable. A thread's own stack is known as a whole; of another (a coroutine's, a signal's) as much as was asked for. */
struct leakline_stack {
    uintptr_t low, high;
    bool own;
};

/* To be called once, before the others. */
void leakline_memory_prepare(void);
/* The stack that `sp` is on; empty if nothing is readable there. */
void leakline_stack_at(uintptr_t sp, struct leakline_stack *stack);
/* Whether the word at `address`, at or above the stack pointer, is on the stack; makes the known part larger where it can. */
bool leakline_stack_reach(struct leakline_stack *stack, uintptr_t address);
/* Whether the page of `address` is readable now. Asks the kernel (0.1 us). */
bool leakline_readable(uintptr_t address);
/* Whether the word at `address` is readable, anywhere. Asks only where it is not the calling thread's own stack, above the stack pointer. */
bool leakline_word_readable(uintptr_t address);

static inline bool leakline_on_stack(const struct leakline_stack *stack, uintptr_t sp, uintptr_t address) {
    return address >= sp && address < stack->high && stack->high - address >= sizeof(uintptr_t);
}

/* The words of a stack are somebody else's objects: their redzones do not matter here. */
__attribute__((no_sanitize("address", "thread"))) static inline uintptr_t leakline_load(uintptr_t address) {
    typedef uintptr_t word __attribute__((aligned(1), may_alias)); /* a corrupt address may be any */
    return *(const volatile word *)address;
}

/* A return address without the signature that a target may give it (aarch64 pointer authentication). */
static inline uintptr_t leakline_strip(uintptr_t pc) {
#if defined(__aarch64__)
    register uintptr_t x30 __asm__("x30") = pc;
    __asm__("hint #7" : "+r"(x30)); /* xpaclri: a hint, that does nothing where there are no signatures */
    return x30;
#else
    return pc;
#endif
}

#endif
