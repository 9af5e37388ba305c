/* The frame description of a function: an entry of .eh_frame, and the entry that it has in common with others. */
#ifndef LEAKLINE_UNWIND_FIND_H
#define LEAKLINE_UNWIND_FIND_H

#include "unwind_rules.h"

/* A common entry (CIE). */
struct leakline_common {
    const uint8_t *at, *end; /* the initial instructions */
    uint64_t code_factor;
    int64_t data_factor;
    uint64_t return_register;
    uint8_t pointer_encoding;
    bool sized, signal;
};

/* The entry of one function (FDE). */
struct leakline_description {
    struct leakline_common common;
    const uint8_t *at, *end; /* the instructions */
    uintptr_t start, size;   /* of the code */
};

bool leakline_find_description(uintptr_t address, struct leakline_description *description);

#endif
