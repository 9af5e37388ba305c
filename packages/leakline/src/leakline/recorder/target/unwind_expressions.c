/* Evaluates DWARF expressions (DWARF 5 §2.5): libc's return from signals and the procedure linkage table are described by them. */
#define _GNU_SOURCE
#include "unwind_expressions.h"
#include "unwind_memory.h"

#include <string.h>

enum { DEPTH = 32, MOST_OPERATIONS = 256 };

struct evaluation {
    const uint8_t *at, *end;
    const struct leakline_frame *frame;
    uintptr_t stack[DEPTH];
    unsigned depth;
};

bool leakline_load_any(uintptr_t address, uintptr_t *word) {
    if (!leakline_word_readable(address)) return false;
    *word = leakline_load(address);
    return true;
}

static bool push(struct evaluation *evaluation, uintptr_t value) {
    if (evaluation->depth == DEPTH) return false;
    evaluation->stack[evaluation->depth++] = value;
    return true;
}

static bool push_register(struct evaluation *evaluation, uint64_t number, int64_t offset) {
    const struct leakline_frame *frame = evaluation->frame;
#if defined(__x86_64__)
    if (number == LEAKLINE_RA) return push(evaluation, frame->pc + (uintptr_t)offset); /* rip itself, in the linkage table */
#endif
    if (number >= LEAKLINE_REGISTERS || !(frame->known >> number & 1)) return false;
    return push(evaluation, frame->registers[number] + (uintptr_t)offset);
}

/* A constant of `size` bytes. */
static bool push_constant(struct evaluation *evaluation, unsigned size, bool is_signed) {
    uint64_t value = 0;
    if ((uintptr_t)(evaluation->end - evaluation->at) < size) return false;
    memcpy(&value, evaluation->at, size);
    evaluation->at += size;
    if (is_signed && size < 8 && value >> (8 * size - 1)) value |= ~(uint64_t)0 << 8 * size;
    return push(evaluation, value);
}

static bool branch(struct evaluation *evaluation, bool taken) {
    int16_t distance;
    if (evaluation->end - evaluation->at < 2) return false;
    memcpy(&distance, evaluation->at, sizeof distance);
    evaluation->at += 2;
    if (!taken) return true;
    if (distance > evaluation->end - evaluation->at) return false;
    evaluation->at += distance;
    return true; /* backwards too: where it went and how often is checked in leakline_evaluate */
}

static bool unary(struct evaluation *evaluation, uint8_t operation) {
    if (evaluation->depth < 1) return false;
    uintptr_t *top = &evaluation->stack[evaluation->depth - 1];
    switch (operation) {
    case 0x06: return leakline_load_any(*top, top); /* deref */
    case 0x12: return push(evaluation, *top);       /* dup */
    case 0x13: evaluation->depth--; return true;    /* drop */
    case 0x19: *top = (intptr_t)*top < 0 ? -*top : *top; return true;
    case 0x1f: *top = -*top; return true;
    case 0x20: *top = ~*top; return true;
    case 0x23: *top += leakline_uleb128(&evaluation->at, evaluation->end); return true; /* plus_uconst */
    case 0x28: evaluation->depth--; return branch(evaluation, evaluation->stack[evaluation->depth] != 0);
    default: return false;
    }
}

static bool binary(struct evaluation *evaluation, uint8_t operation) {
    if (evaluation->depth < 2) return false;
    uintptr_t b = evaluation->stack[--evaluation->depth], *a = &evaluation->stack[evaluation->depth - 1];
    intptr_t signed_a = (intptr_t)*a, signed_b = (intptr_t)b;
    switch (operation) {
    case 0x14: evaluation->depth++; return push(evaluation, *a); /* over */
    case 0x16: evaluation->stack[evaluation->depth++] = *a; *a = b; return true; /* swap */
    case 0x1a: *a &= b; return true;
    case 0x1b:
        if (b == 0 || (signed_a == INTPTR_MIN && signed_b == -1)) return false;
        *a = (uintptr_t)(signed_a / signed_b);
        return true;
    case 0x1c: *a -= b; return true;
    case 0x1d: return b != 0 && (*a %= b, true);
    case 0x1e: *a *= b; return true;
    case 0x21: *a |= b; return true;
    case 0x22: *a += b; return true;
    case 0x24: *a = b < 64 ? *a << b : 0; return true;
    case 0x25: *a = b < 64 ? *a >> b : 0; return true;
    case 0x26: *a = (uintptr_t)(signed_a >> (b < 63 ? b : 63)); return true;
    case 0x27: *a ^= b; return true;
    case 0x29: *a = signed_a == signed_b; return true;
    case 0x2a: *a = signed_a >= signed_b; return true;
    case 0x2b: *a = signed_a > signed_b; return true;
    case 0x2c: *a = signed_a <= signed_b; return true;
    case 0x2d: *a = signed_a < signed_b; return true;
    case 0x2e: *a = signed_a != signed_b; return true;
    default: return false;
    }
}

static bool run_one(struct evaluation *evaluation) {
    uint8_t operation = *evaluation->at++;
    const uint8_t **at = &evaluation->at, *end = evaluation->end;
    if (operation >= 0x30 && operation <= 0x4f) return push(evaluation, operation - 0x30u); /* lit */
    if (operation >= 0x50 && operation <= 0x6f) return push_register(evaluation, operation - 0x50u, 0);
    if (operation >= 0x70 && operation <= 0x8f) return push_register(evaluation, operation - 0x70u, leakline_sleb128(at, end));
    switch (operation) {
    case 0x03: return push_constant(evaluation, 8, false); /* addr */
    case 0x08 ... 0x0f: return push_constant(evaluation, 1u << (operation - 0x08) / 2, operation & 1);
    case 0x10: return push(evaluation, leakline_uleb128(at, end));
    case 0x11: return push(evaluation, (uintptr_t)leakline_sleb128(at, end));
    case 0x2f: return branch(evaluation, true);
    case 0x90: return push_register(evaluation, leakline_uleb128(at, end), 0);
    case 0x92: {
        uint64_t number = leakline_uleb128(at, end);
        return push_register(evaluation, number, leakline_sleb128(at, end));
    }
    case 0x96: return true; /* nop */
    case 0x14:
    case 0x16:
    case 0x1a ... 0x1e:
    case 0x21:
    case 0x22:
    case 0x24 ... 0x27:
    case 0x29 ... 0x2e: return binary(evaluation, operation);
    default: return unary(evaluation, operation);
    }
}

bool leakline_evaluate(const uint8_t *expression, const struct leakline_frame *frame, const uintptr_t *first, uintptr_t *result) {
    struct evaluation evaluation = {.at = expression, .frame = frame};
    uint64_t length = leakline_uleb128(&evaluation.at, expression + 10);
    const uint8_t *start = evaluation.at;
    evaluation.end = start + length;
    if (first != NULL) push(&evaluation, *first);
    for (unsigned count = 0; evaluation.at != evaluation.end; count++)
        if (evaluation.at < start || evaluation.at > evaluation.end || count == MOST_OPERATIONS || !run_one(&evaluation)) return false;
    if (evaluation.depth == 0) return false;
    *result = evaluation.stack[evaluation.depth - 1];
    return true;
}
