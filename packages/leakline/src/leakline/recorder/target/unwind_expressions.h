/* DWARF expressions, as call frame information uses them. */
#ifndef LEAKLINE_UNWIND_EXPRESSIONS_H
#define LEAKLINE_UNWIND_EXPRESSIONS_H

#include "unwind_registers.h"

/* The value of an expression (a length and operations), begun with `first` on its stack if there is one. False where it needs a register
 * that is not known, memory that is not readable, or an operation that is not known. */
bool leakline_evaluate(const uint8_t *expression, const struct leakline_frame *frame, const uintptr_t *first, uintptr_t *result);
/* A word of memory that may not be there. */
bool leakline_load_any(uintptr_t address, uintptr_t *word);

#endif
