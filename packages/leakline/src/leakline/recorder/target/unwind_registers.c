/* Walks the stack with all registers, each frame by its whole row (unwind_registers.h). */
#define _GNU_SOURCE
#include "unwind_registers.h"
#include "unwind_expressions.h"
#include "unwind_memory.h"

#include <ucontext.h>

enum { OWN_FRAMES = 32, OWN_SPAN = 1 << 16, MOST_SWITCHES = 16 };

static void put(struct leakline_frame *frame, unsigned number, uintptr_t value) {
    frame->registers[number] = value;
    frame->known |= (uint64_t)1 << number;
}

/* --- signal frames that nothing describes: known by the code that they return to, as libgcc knows them (musl, and the arm64 vdso) */

bool leakline_is_signal_return(uintptr_t pc) {
    if (!leakline_word_readable(pc) || !leakline_word_readable(pc + 1)) return false;
#if defined(__x86_64__)
    return leakline_load(pc) == 0x0f0000000fc0c748 && leakline_load(pc + 1) >> 56 == 0x05; /* mov $15, %rax; syscall */
#else
    return leakline_load(pc) == 0xd4000001d2801168; /* mov x8, #139; svc #0 */
#endif
}

__attribute__((no_sanitize("address", "thread"))) static bool leave_signal(struct leakline_frame *frame) {
    uintptr_t sp = frame->registers[LEAKLINE_SP];
    if (sp % _Alignof(ucontext_t) != 0) return false;
#if defined(__x86_64__)
    static const uint8_t order[16] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP,
                                      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    const ucontext_t *context = (const ucontext_t *)sp; /* behind the return address */
    if (!leakline_readable(sp) || !leakline_readable((uintptr_t)&context->uc_mcontext.gregs[REG_RIP] + 7)) return false;
    for (unsigned i = 0; i < 16; i++) put(frame, i, (uintptr_t)context->uc_mcontext.gregs[order[i]]);
    frame->pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#else
    const ucontext_t *context = (const ucontext_t *)(sp + 128); /* behind the siginfo */
    if (!leakline_readable(sp) || !leakline_readable((uintptr_t)&context->uc_mcontext.pc + 7)) return false;
    for (unsigned i = 0; i < 31; i++) put(frame, i, context->uc_mcontext.regs[i]);
    put(frame, LEAKLINE_SP, context->uc_mcontext.sp);
    frame->pc = context->uc_mcontext.pc;
#endif
    frame->interrupted = true;
    return true;
}

/* --- one frame by its row */

static bool find_cfa(const struct leakline_frame *frame, const struct leakline_row *row, uintptr_t *cfa) {
    if (row->cfa_expression != NULL) return leakline_evaluate(row->cfa_expression, frame, NULL, cfa);
    if (row->cfa_register >= LEAKLINE_REGISTERS || !(frame->known >> row->cfa_register & 1)) return false;
    *cfa = frame->registers[row->cfa_register] + (uintptr_t)row->cfa_offset;
    return true;
}

/* The caller's value of a register. False if it is not known. */
static bool find_register(const struct leakline_frame *frame, const struct leakline_row *row, unsigned number, uintptr_t cfa, uintptr_t *value) {
    int64_t given = row->value[number];
    const uint8_t *expression = (const uint8_t *)(uintptr_t)given;
    uintptr_t address;
    switch (row->how[number]) {
    case LEAKLINE_SAME: given = number; /* fall through */
    case LEAKLINE_IN_REGISTER:
        if (given < 0 || given >= LEAKLINE_REGISTERS || !(frame->known >> given & 1)) return false;
        *value = frame->registers[given];
        return true;
    case LEAKLINE_AT_OFFSET: return leakline_load_any(cfa + (uintptr_t)given, value);
    case LEAKLINE_IS_OFFSET: *value = cfa + (uintptr_t)given; return true;
    case LEAKLINE_AT_EXPRESSION: return leakline_evaluate(expression, frame, &cfa, &address) && leakline_load_any(address, value);
    case LEAKLINE_IS_EXPRESSION: return leakline_evaluate(expression, frame, &cfa, value);
    default: return false;
    }
}

enum leakline_step leakline_step(struct leakline_frame *frame) {
    struct leakline_row row;
    uintptr_t value, cfa;
    if (leakline_is_context_end(frame->pc)) return LEAKLINE_STEP_END;
    if (!leakline_find_row(frame->pc - !frame->interrupted, &row)) {
        if (!leakline_is_signal_return(frame->pc)) return LEAKLINE_STEP_BROKEN;
        return leave_signal(frame) ? LEAKLINE_STEPPED : LEAKLINE_STEP_BROKEN;
    }
    if (row.how[LEAKLINE_RA] == LEAKLINE_UNDEFINED) return LEAKLINE_STEP_END;
    if (!frame->interrupted && !row.signal && leakline_after_call(frame->pc) == 0) return LEAKLINE_STEP_NO_CALL;
    if (!find_cfa(frame, &row, &cfa) || !find_register(frame, &row, LEAKLINE_RA, cfa, &value)) return LEAKLINE_STEP_BROKEN;
    struct leakline_frame caller = {.pc = leakline_strip(value), .interrupted = row.signal};
    for (unsigned number = 0; number < LEAKLINE_REGISTERS; number++)
        if (find_register(frame, &row, number, cfa, &value)) put(&caller, number, value);
    if (row.how[LEAKLINE_SP] == LEAKLINE_SAME) put(&caller, LEAKLINE_SP, cfa);
    if (!(caller.known >> LEAKLINE_SP & 1)) return LEAKLINE_STEP_BROKEN;
    *frame = caller;
    return LEAKLINE_STEPPED;
}

/* --- the walk */

/* The registers here that a callee must keep; pc is inside this function. Always inlined: the row of its caller describes them. */
__attribute__((always_inline)) static inline void read_registers(struct leakline_frame *frame) {
    uintptr_t *to = frame->registers;
    uintptr_t pc;
#if defined(__x86_64__)
    __asm__ volatile("movq %%rbx, 24(%1)\n\tmovq %%rbp, 48(%1)\n\tmovq %%rsp, 56(%1)\n\tmovq %%r12, 96(%1)\n\tmovq %%r13, 104(%1)\n\t"
                     "movq %%r14, 112(%1)\n\tmovq %%r15, 120(%1)\n\tleaq 0f(%%rip), %0\n0:"
                     : "=&r"(pc)
                     : "r"(to)
                     : "memory");
    frame->known = 1 << 3 | 1 << 6 | 1 << 7 | 0xf000;
#else
    uintptr_t sp;
    __asm__ volatile("stp x19, x20, [%2, #152]\n\tstp x21, x22, [%2, #168]\n\tstp x23, x24, [%2, #184]\n\tstp x25, x26, [%2, #200]\n\t"
                     "stp x27, x28, [%2, #216]\n\tstp x29, x30, [%2, #232]\n\tmov %1, sp\n\tstr %1, [%2, #248]\n\tadr %0, 0f\n0:"
                     : "=&r"(pc), "=&r"(sp)
                     : "r"(to)
                     : "memory");
    frame->known = 0xfff80000;
#endif
    frame->pc = pc;
    frame->interrupted = true;
}

/* Steps out to the caller's frame. Where that fails (`from` is not of this stack), the other registers stay unknown. */
static void reach(struct leakline_frame *frame, const struct leakline_registers *from) {
    for (unsigned i = 0; i < OWN_FRAMES; i++) {
        if (frame->pc == from->pc && frame->registers[LEAKLINE_SP] == from->sp) return;
        if (leakline_step(frame) != LEAKLINE_STEPPED) break;
    }
    *frame = (struct leakline_frame){.pc = from->pc};
    put(frame, LEAKLINE_SP, from->sp);
    put(frame, LEAKLINE_FP, from->fp);
}

/* Outwards is upwards on one stack. To leave it for another is what a signal on an alternate stack does, or code that runs something on a
 * stack of its own, which called; too often is a loop. A leaf that was interrupted has no frame on aarch64: its caller has the same sp.
 * [own_low, own_high): the frames of this very walk, which are nobody's callers. */
static bool plausible(const struct leakline_frame *frame, uintptr_t sp, bool was_interrupted, unsigned *switches, uintptr_t own_low, uintptr_t own_high) {
    uintptr_t to = frame->registers[LEAKLINE_SP];
    struct leakline_stack stack;
    if (to % sizeof(uintptr_t) != 0) return false;
    if (to >= own_low && to < own_high && own_high - own_low < OWN_SPAN) return false;
    leakline_stack_at(sp, &stack);
    if (to > sp && leakline_stack_reach(&stack, to - sizeof(uintptr_t))) return true;
    if (to == sp && was_interrupted) return true;
    if (++*switches > MOST_SWITCHES || !leakline_readable(to - 1)) return false;
    return frame->interrupted || leakline_after_call(frame->pc) == 1;
}

void leakline_walk_registers(const struct leakline_registers *from, struct leakline_origin *origin) {
    struct leakline_frame frame;
    read_registers(&frame);
    reach(&frame, from);
    const uintptr_t own_low = (uintptr_t)__builtin_frame_address(0);
    unsigned count = 0, switches = 0;
    for (;;) {
        struct leakline_frame caller = frame;
        enum leakline_step step = leakline_step(&caller);
        if (step == LEAKLINE_STEP_NO_CALL && count > 0) break;
        if (step == LEAKLINE_STEP_BROKEN && count > 0 && !frame.interrupted && leakline_after_call(frame.pc) != 1) break;
        if (count == LEAKLINE_NATIVE_FRAMES) {
            origin->flags |= LEAKLINE_NATIVE_CUT;
            origin->native_count = LEAKLINE_NATIVE_FRAMES;
            return;
        }
        origin->native[count++] = frame.pc;
        origin->native_count = (uint16_t)count;
        if (step == LEAKLINE_STEP_END) return;
        if (step != LEAKLINE_STEPPED) break;
        if (!plausible(&caller, frame.registers[LEAKLINE_SP], frame.interrupted, &switches, own_low, from->sp)) break;
        if (caller.pc == 0) return;
        frame = caller;
    }
    origin->native_count = (uint16_t)count;
    origin->flags |= LEAKLINE_NATIVE_BROKEN;
}
