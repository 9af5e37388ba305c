/* The calling thread's native frames: leakline_unwind of origin.h. */
#define _GNU_SOURCE
#include "origin.h"

#include <errno.h>
#include <link.h>
#include <unwind.h>

struct walk {
    const struct leakline_registers *from;
    struct leakline_origin *origin;
    bool reached; /* the caller's frame: what is inside of it is our own */
};

static _Unwind_Reason_Code visit(struct _Unwind_Context *context, void *argument) {
    struct walk *walk = argument;
    uintptr_t pc = _Unwind_GetIP(context);
    if (!walk->reached) {
        walk->reached = pc == walk->from->pc && _Unwind_GetCFA(context) == walk->from->sp;
        if (!walk->reached) return _URC_NO_REASON;
    }
    if (pc == 0) return _URC_END_OF_STACK;
    if (walk->origin->native_count == LEAKLINE_NATIVE_FRAMES) {
        walk->origin->flags |= LEAKLINE_NATIVE_CUT;
        return _URC_END_OF_STACK;
    }
    walk->origin->native[walk->origin->native_count++] = pc;
    return _URC_NO_REASON;
}

static int read_generation(struct dl_phdr_info *information, size_t size, void *generation) {
    (void)size;
    *(uint64_t *)generation = information->dlpi_adds + information->dlpi_subs;
    return 1;
}

uint64_t leakline_libraries_generation(void) {
    uint64_t generation = 0;
    dl_iterate_phdr(read_generation, &generation);
    return generation;
}

void leakline_unwind_prepare(void) {
    struct leakline_registers here = LEAKLINE_CALLER;
    struct leakline_origin origin = {0};
    leakline_unwind(&here, &origin); /* the first unwinding allocates */
}

void leakline_unwind(const struct leakline_registers *from, struct leakline_origin *origin) {
    int error = errno;
    origin->native_count = 0;
    origin->flags &= ~(uint32_t)(LEAKLINE_NATIVE_CUT | LEAKLINE_NATIVE_BROKEN);
    origin->generation = leakline_libraries_generation();
    struct walk walk = {.from = from, .origin = origin};
    _Unwind_Backtrace(visit, &walk);
    if (!walk.reached) {
        origin->native[0] = from->pc;
        origin->native_count = 1;
        origin->flags |= LEAKLINE_NATIVE_BROKEN;
    }
    errno = error;
}
