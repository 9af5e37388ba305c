/* Unwind rules: how the caller's registers are found at an address, from .eh_frame (DWARF call frame information). */
#ifndef LEAKLINE_UNWIND_RULES_H
#define LEAKLINE_UNWIND_RULES_H

#include <stdbool.h>
#include <stdint.h>

/* DWARF numbers of the registers, as in each architecture's psABI. */
#if defined(__x86_64__)
enum { LEAKLINE_FP = 6, LEAKLINE_SP = 7, LEAKLINE_RA = 16, LEAKLINE_REGISTERS = 17 };
#elif defined(__aarch64__)
enum { LEAKLINE_FP = 29, LEAKLINE_RA = 30, LEAKLINE_SP = 31, LEAKLINE_REGISTERS = 32 };
#else
#error "the recorder runs on x86-64 and aarch64"
#endif

/* To be called once, before the others. */
void leakline_rules_prepare(void);
/* Whether `pc` is where a context of makecontext returns to: the outermost frame of its stack. */
bool leakline_is_context_end(uintptr_t pc);

/* --- the whole row of one address */

enum leakline_how_found {
    LEAKLINE_SAME = 0,
    LEAKLINE_UNDEFINED,
    LEAKLINE_AT_OFFSET,     /* saved at CFA + value */
    LEAKLINE_IS_OFFSET,     /* is CFA + value */
    LEAKLINE_AT_EXPRESSION, /* saved where the expression says; value: its address, a length (uleb128) and the operations */
    LEAKLINE_IS_EXPRESSION,
    LEAKLINE_IN_REGISTER,
};

struct leakline_row {
    const uint8_t *cfa_expression; /* NULL: CFA = cfa_register + cfa_offset */
    int64_t cfa_offset;
    uint32_t cfa_register;
    bool signal; /* the frame of a signal handler's return: its caller was interrupted, not calling */
    uint8_t how[LEAKLINE_REGISTERS];
    int64_t value[LEAKLINE_REGISTERS];
};

/* The row of the code at `address` (of a call: return address - 1); false if nothing describes it, or not in a way known here. */
bool leakline_find_row(uintptr_t address, struct leakline_row *row);

/* --- its short form, in one word: enough for nearly all frames, with only pc, sp and fp known */

enum leakline_rule_kind {
    LEAKLINE_RULE_SP = 0,  /* CFA = sp + offset */
    LEAKLINE_RULE_FP,      /* CFA = fp + offset */
    LEAKLINE_RULE_LOAD,    /* CFA = word at fp + offset */
    LEAKLINE_RULE_END,     /* the outermost frame: its return address is undefined */
    LEAKLINE_RULE_ODD,     /* needs the whole row */
    LEAKLINE_RULE_NONE,    /* nothing describes this code */
    LEAKLINE_RULE_NO_CALL, /* no call instruction before it: no return address */
};
enum { LEAKLINE_FP_SAME = 0, LEAKLINE_FP_AT_CFA, LEAKLINE_FP_AT_FP };

static inline enum leakline_rule_kind leakline_rule_kind(uint64_t rule) { return (enum leakline_rule_kind)(rule & 7); }
static inline unsigned leakline_rule_fp(uint64_t rule) { return rule >> 3 & 3; }
static inline int64_t leakline_rule_cfa_offset(uint64_t rule) { return (int32_t)(rule >> 32); }
static inline int64_t leakline_rule_fp_offset(uint64_t rule) { return (int64_t)(int16_t)(rule >> 16) * 8; }
/* Where the return address is saved, from the CFA. */
static inline int64_t leakline_rule_ra_offset(uint64_t rule) {
#if defined(__x86_64__)
    (void)rule;
    return -8;
#else
    int64_t from_fp = (int64_t)((int16_t)(uint16_t)rule >> 5) * 8;
    return leakline_rule_fp(rule) == LEAKLINE_FP_AT_CFA ? leakline_rule_fp_offset(rule) + from_fp : from_fp;
#endif
}

/* The rule for the frame that returns to `pc`. */
uint64_t leakline_make_rule(uintptr_t pc);
/* 1: a call instruction ends at `pc`; 0: none does; -1: its code cannot be read. */
int leakline_after_call(uintptr_t pc);

/* --- encodings, for expressions too */

uint64_t leakline_uleb128(const uint8_t **at, const uint8_t *end);
int64_t leakline_sleb128(const uint8_t **at, const uint8_t *end);

#endif
