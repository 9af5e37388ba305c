/* The walk with all registers: for frames whose rule needs more than pc, sp and fp, and through signal handlers. */
#ifndef LEAKLINE_UNWIND_REGISTERS_H
#define LEAKLINE_UNWIND_REGISTERS_H

#include "origin.h"
#include "unwind_rules.h"

struct leakline_frame {
    uintptr_t pc;
    uintptr_t registers[LEAKLINE_REGISTERS]; /* those of `known` */
    uint64_t known;                          /* a bit each */
    bool interrupted;                        /* by a signal: pc is the instruction that would come next, not a return address */
};

enum leakline_step {
    LEAKLINE_STEPPED, /* the frame is its caller now */
    LEAKLINE_STEP_END,
    LEAKLINE_STEP_BROKEN,  /* nothing describes this frame, or it cannot be read */
    LEAKLINE_STEP_NO_CALL, /* pc is no return address: something overwrote the stack */
};

/* Replaces a frame by its caller. */
enum leakline_step leakline_step(struct leakline_frame *frame);
/* Fills native and native_count of an origin, and the flags NATIVE_*. Starts at its own frame, to know the registers that `from` lacks. */
void leakline_walk_registers(const struct leakline_registers *from, struct leakline_origin *origin);
/* Whether the code at `pc` is what a signal handler returns to. */
bool leakline_is_signal_return(uintptr_t pc);

#endif
