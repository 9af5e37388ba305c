/* Runs the instructions of a frame description (DWARF 5 §6.4) up to an address, and makes the short form (unwind_rules.h). */
#define _GNU_SOURCE
#include "unwind_rules.h"
#include "unwind_find.h"
#include "unwind_memory.h"
#include "unwind_symbols.h"

#include <stddef.h>
#include <string.h>
#include <ucontext.h>

/* --- the end of coroutines */

static uintptr_t context_end;

bool leakline_is_context_end(uintptr_t pc) { return pc == context_end; }

/* makecontext plants a return address, which no call precedes and nothing describes: of a context made here, what it planted. */
void leakline_rules_prepare(void) {
    int (*get)(ucontext_t *) = (int (*)(ucontext_t *))leakline_find_symbol("getcontext");
    void (*make)(ucontext_t *, void (*)(void), int) = (void (*)(ucontext_t *, void (*)(void), int))leakline_find_symbol("makecontext");
    uintptr_t stack[64] = {0};
    ucontext_t context;
    if (get == NULL || make == NULL || get(&context) != 0) return;
    context.uc_stack = (stack_t){.ss_sp = stack, .ss_size = sizeof stack};
    context.uc_link = NULL;
    make(&context, (void (*)(void))leakline_rules_prepare, 0);
#if defined(__x86_64__)
    uintptr_t sp = (uintptr_t)context.uc_mcontext.gregs[REG_RSP];
    if (sp - (uintptr_t)stack < sizeof stack) context_end = *(uintptr_t *)sp;
#else
    context_end = context.uc_mcontext.regs[LEAKLINE_RA];
#endif
}

/* --- instructions */

enum { REMEMBERED = 4 }; /* compilers nest one deep; a row is 0.3 KB of a stack that may be a signal's */

struct machine {
    const struct leakline_common *common;
    struct leakline_row *row;
    const struct leakline_row *initial; /* NULL while it is made */
    struct leakline_row remembered[REMEMBERED];
    unsigned depth;
    uintptr_t location, address;
};

static uint16_t load16(const uint8_t *at) {
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint32_t load32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void set(struct machine *machine, uint64_t number, enum leakline_how_found how, int64_t value) {
    if (number >= LEAKLINE_REGISTERS) return; /* vector registers and the like: no address depends on them */
    machine->row->how[number] = (uint8_t)how;
    machine->row->value[number] = value;
}

static void restore(struct machine *machine, uint64_t number) {
    if (number >= LEAKLINE_REGISTERS || machine->initial == NULL) return;
    set(machine, number, machine->initial->how[number], machine->initial->value[number]);
}

static bool advance(struct machine *machine, uint64_t units) {
    machine->location += units * machine->common->code_factor;
    return machine->location <= machine->address;
}

/* Skips a block (a length and bytes); its address. */
static const uint8_t *block(const uint8_t **at, const uint8_t *end) {
    const uint8_t *start = *at;
    uint64_t length = leakline_uleb128(at, end);
    *at = length > (uint64_t)(end - *at) ? end : *at + length;
    return start;
}

enum outcome { GO_ON, DONE, UNKNOWN };

/* The instructions that say where the CFA is. */
static enum outcome run_cfa(struct machine *machine, uint8_t operation, const uint8_t **at, const uint8_t *end) {
    struct leakline_row *row = machine->row;
    switch (operation) {
    case 0x0c: /* def_cfa */
    case 0x12: /* def_cfa_sf */
    case 0x0d: /* def_cfa_register */
        row->cfa_register = (uint32_t)leakline_uleb128(at, end);
        row->cfa_expression = NULL;
        if (operation == 0x0c) row->cfa_offset = (int64_t)leakline_uleb128(at, end);
        if (operation == 0x12) row->cfa_offset = leakline_sleb128(at, end) * machine->common->data_factor;
        return GO_ON;
    case 0x0e: row->cfa_offset = (int64_t)leakline_uleb128(at, end); return GO_ON; /* def_cfa_offset */
    case 0x13: row->cfa_offset = leakline_sleb128(at, end) * machine->common->data_factor; return GO_ON; /* def_cfa_offset_sf */
    case 0x0f: row->cfa_expression = block(at, end); return GO_ON; /* def_cfa_expression */
    default: return UNKNOWN;
    }
}

/* The instructions that say where a register is. */
static enum outcome run_register(struct machine *machine, uint8_t operation, const uint8_t **at, const uint8_t *end) {
    int64_t factor = machine->common->data_factor;
    uint64_t number = leakline_uleb128(at, end);
    switch (operation) {
    case 0x05: set(machine, number, LEAKLINE_AT_OFFSET, (int64_t)leakline_uleb128(at, end) * factor); return GO_ON; /* offset_extended */
    case 0x06: restore(machine, number); return GO_ON; /* restore_extended */
    case 0x07: set(machine, number, LEAKLINE_UNDEFINED, 0); return GO_ON;
    case 0x08: set(machine, number, LEAKLINE_SAME, 0); return GO_ON;
    case 0x09: set(machine, number, LEAKLINE_IN_REGISTER, (int64_t)leakline_uleb128(at, end)); return GO_ON;
    case 0x10: set(machine, number, LEAKLINE_AT_EXPRESSION, (int64_t)(uintptr_t)block(at, end)); return GO_ON;
    case 0x11: set(machine, number, LEAKLINE_AT_OFFSET, leakline_sleb128(at, end) * factor); return GO_ON; /* offset_extended_sf */
    case 0x14: set(machine, number, LEAKLINE_IS_OFFSET, (int64_t)leakline_uleb128(at, end) * factor); return GO_ON; /* val_offset */
    case 0x15: set(machine, number, LEAKLINE_IS_OFFSET, leakline_sleb128(at, end) * factor); return GO_ON; /* val_offset_sf */
    case 0x16: set(machine, number, LEAKLINE_IS_EXPRESSION, (int64_t)(uintptr_t)block(at, end)); return GO_ON; /* val_expression */
    case 0x2f: set(machine, number, LEAKLINE_AT_OFFSET, -(int64_t)leakline_uleb128(at, end) * factor); return GO_ON; /* GNU negative offset */
    default: return UNKNOWN;
    }
}

static enum outcome run_one(struct machine *machine, const uint8_t **at, const uint8_t *end) {
    static const uint8_t widths[5] = {0, 0, 1, 2, 4};
    uint8_t operation = *(*at)++;
    uint64_t low = operation & 0x3f;
    switch (operation & 0xc0) {
    case 0x40: return advance(machine, low) ? GO_ON : DONE;
    case 0x80: set(machine, low, LEAKLINE_AT_OFFSET, (int64_t)leakline_uleb128(at, end) * machine->common->data_factor); return GO_ON;
    case 0xc0: restore(machine, low); return GO_ON;
    default: break;
    }
    switch (operation) {
    case 0x00: return GO_ON;
    case 0x02: /* advance_loc1, 2, 4 */
    case 0x03:
    case 0x04: {
        const uint8_t *start = *at;
        if (end - start < widths[operation]) return UNKNOWN;
        *at += widths[operation];
        uint64_t units = operation == 2 ? *start : operation == 3 ? load16(start) : load32(start);
        return advance(machine, units) ? GO_ON : DONE;
    }
    case 0x0a: /* remember_state */
        if (machine->depth == REMEMBERED) return UNKNOWN;
        machine->remembered[machine->depth++] = *machine->row;
        return GO_ON;
    case 0x0b: /* restore_state */
        if (machine->depth == 0) return UNKNOWN;
        *machine->row = machine->remembered[--machine->depth];
        return GO_ON;
    case 0x0c ... 0x0f:
    case 0x12:
    case 0x13: return run_cfa(machine, operation, at, end);
#if defined(__aarch64__)
    case 0x2d: return GO_ON; /* negate_ra_state: return addresses are stripped whether signed or not */
#endif
    case 0x2e: leakline_uleb128(at, end); return GO_ON; /* GNU args_size */
    default: return run_register(machine, operation, at, end);
    }
}

static bool run(struct machine *machine, const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        enum outcome outcome = run_one(machine, &at, end);
        if (outcome == DONE) return true;
        if (outcome == UNKNOWN) return false;
    }
    return true;
}

bool leakline_find_row(uintptr_t address, struct leakline_row *row) {
    struct leakline_description description;
    struct leakline_row initial;
    if (!leakline_find_description(address, &description)) return false;
    memset(row, 0, sizeof *row);
    row->cfa_register = LEAKLINE_REGISTERS; /* none */
    row->signal = description.common.signal;
    struct machine machine;
    machine.common = &description.common;
    machine.row = row;
    machine.initial = NULL;
    machine.depth = 0;
    machine.location = description.start;
    machine.address = ~(uintptr_t)0;
    if (!run(&machine, description.common.at, description.common.end)) return false;
    initial = *row;
    machine.initial = &initial;
    machine.location = description.start;
    machine.address = address;
    return run(&machine, description.at, description.end);
}

/* --- the short form */

#if defined(__x86_64__)
/* The length of an instruction FF with this ModRM byte, which its SIB byte may follow. */
static unsigned indirect_length(uint8_t modrm, uint8_t sib) {
    unsigned mode = modrm >> 6, with_sib = (modrm & 7) == 4 && mode != 3;
    bool wide = mode == 2 || (mode == 0 && ((modrm & 7) == 5 || (with_sib && (sib & 7) == 5)));
    return 2 + with_sib + (wide ? 4 : mode == 1);
}
#endif

/* x86: E8 and four bytes, or FF /2 with what its address needs; aarch64: BL, BLR and the authenticating forms of BLR. */
__attribute__((no_sanitize("address", "thread"))) int leakline_after_call(uintptr_t pc) {
    const volatile uint8_t *code = (const uint8_t *)pc;
    if (!leakline_readable(pc - 1)) return -1;
#if defined(__x86_64__)
    unsigned longest = leakline_readable(pc - 7) ? 7 : (unsigned)(pc % 4096); /* of the page */
    if (longest >= 5 && code[-5] == 0xe8) return 1;
    for (unsigned length = 2; length <= longest; length++) {
        const volatile uint8_t *start = code - length;
        if (start[0] == 0xff && (start[1] & 0x38) == 0x10 && indirect_length(start[1], length > 2 ? start[2] : 0) == length) return 1;
    }
    return 0;
#else
    if (pc % 4 != 0) return 0;
    uint32_t instruction = *(const volatile uint32_t *)(code - 4);
    return (instruction & 0xfc000000) == 0x94000000 || (instruction & 0xfffffc1f) == 0xd63f0000 ||
           (instruction & 0xfefff800) == 0xd63f0800;
#endif
}

/* An expression `fp + *offset`, as a CFA followed by a load. */
static bool is_fp_expression(const uint8_t *expression, bool loaded, int64_t *offset) {
    const uint8_t *at = expression, *limit = expression + 10;
    uint64_t length = leakline_uleb128(&at, limit);
    const uint8_t *end = at + length;
    if (length < 2 || *at++ != 0x70 + LEAKLINE_FP) return false;
    *offset = leakline_sleb128(&at, end);
    if (loaded && (at == end || *at++ != 0x06)) return false;
    return at == end;
}

static bool make_cfa(const struct leakline_row *row, enum leakline_rule_kind *kind, int64_t *offset) {
    if (row->cfa_expression != NULL) {
        *kind = LEAKLINE_RULE_LOAD;
        if (!is_fp_expression(row->cfa_expression, true, offset)) return false;
    } else {
        *kind = row->cfa_register == LEAKLINE_SP ? LEAKLINE_RULE_SP : LEAKLINE_RULE_FP;
        *offset = row->cfa_offset;
        if (row->cfa_register != LEAKLINE_SP && row->cfa_register != LEAKLINE_FP) return false;
    }
    return *offset == (int32_t)*offset;
}

static bool make_fp(const struct leakline_row *row, unsigned *fp, int64_t *offset) {
    *offset = 0;
    switch (row->how[LEAKLINE_FP]) {
    case LEAKLINE_SAME: *fp = LEAKLINE_FP_SAME; return true;
    case LEAKLINE_AT_OFFSET:
        *fp = LEAKLINE_FP_AT_CFA;
        *offset = row->value[LEAKLINE_FP];
        break;
    case LEAKLINE_AT_EXPRESSION:
        *fp = LEAKLINE_FP_AT_FP;
        if (!is_fp_expression((const uint8_t *)(uintptr_t)row->value[LEAKLINE_FP], false, offset)) return false;
        break;
    default: return false;
    }
    return *offset % 8 == 0 && *offset / 8 == (int16_t)(*offset / 8);
}

uint64_t leakline_make_rule(uintptr_t pc) {
    struct leakline_row row;
    if (leakline_is_context_end(pc)) return LEAKLINE_RULE_END;
    if (!leakline_find_row(pc - 1, &row)) return LEAKLINE_RULE_NONE;
    if (row.signal) return LEAKLINE_RULE_ODD;
    if (row.how[LEAKLINE_RA] == LEAKLINE_UNDEFINED) return LEAKLINE_RULE_END;
    if (leakline_after_call(pc) == 0) return LEAKLINE_RULE_NO_CALL;
    enum leakline_rule_kind kind;
    unsigned fp;
    int64_t cfa_offset, fp_offset, ra_offset = row.value[LEAKLINE_RA];
    if (!make_cfa(&row, &kind, &cfa_offset) || !make_fp(&row, &fp, &fp_offset)) return LEAKLINE_RULE_ODD;
    if (row.how[LEAKLINE_RA] != LEAKLINE_AT_OFFSET || ra_offset % 8 != 0 || ra_offset >= 0) return LEAKLINE_RULE_ODD;
    if (row.how[LEAKLINE_SP] != LEAKLINE_SAME) return LEAKLINE_RULE_ODD;
    int64_t from_fp = (fp == LEAKLINE_FP_AT_CFA ? ra_offset - fp_offset : ra_offset) / 8;
    if (from_fp < -1024 || from_fp > 1023) return LEAKLINE_RULE_ODD;
    uint64_t rule = (uint64_t)kind | (uint64_t)fp << 3 | ((uint64_t)from_fp & 0x7ff) << 5 | (uint64_t)(uint16_t)(fp_offset / 8) << 16 |
                    (uint64_t)(uint32_t)cfa_offset << 32;
    return leakline_rule_ra_offset(rule) == ra_offset ? rule : LEAKLINE_RULE_ODD;
}
