/* Compares every walk with libgcc's (unwind_check.h). Not part of the library otherwise. */
#define _GNU_SOURCE
#include "unwind_check.h"

#ifdef LEAKLINE_UNWIND_CHECK
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <unwind.h>

struct leakline_unwind_checks leakline_unwind_checks;

struct walk {
    const struct leakline_registers *from;
    uintptr_t frames[LEAKLINE_NATIVE_FRAMES + 1];
    unsigned count;
    bool reached; /* the caller's frame: what is inside of it is our own */
};

static _Unwind_Reason_Code visit(struct _Unwind_Context *context, void *argument) {
    struct walk *walk = argument;
    uintptr_t pc = _Unwind_GetIP(context);
    if (!walk->reached && !(pc == walk->from->pc && _Unwind_GetCFA(context) == walk->from->sp)) return _URC_NO_REASON;
    walk->reached = true;
    if (pc == 0 || walk->count > LEAKLINE_NATIVE_FRAMES) return _URC_END_OF_STACK;
    walk->frames[walk->count++] = pc;
    return _URC_NO_REASON;
}

static void tell(const struct walk *walk, const struct leakline_origin *origin) {
    char line[128];
    for (unsigned i = 0; i < walk->count || i < origin->native_count; i++) {
        int length = snprintf(line, sizeof line, "%2u %16lx %16lx\n", i, i < origin->native_count ? origin->native[i] : 0,
                              i < walk->count ? walk->frames[i] : 0);
        if (write(2, line, (size_t)length) < 0) return;
    }
}

void leakline_unwind_check(const struct leakline_registers *from, const struct leakline_origin *origin) {
    struct walk walk = {.from = from};
    if (leakline_unwind_checks.off) return;
    _Unwind_Backtrace(visit, &walk);
    bool cut = walk.count > LEAKLINE_NATIVE_FRAMES, broken = origin->flags & LEAKLINE_NATIVE_BROKEN;
    unsigned count = cut ? LEAKLINE_NATIVE_FRAMES : walk.count;
    bool prefix = origin->native_count <= count && memcmp(walk.frames, origin->native, origin->native_count * sizeof(uintptr_t)) == 0;
    bool whole = prefix && origin->native_count == count && cut == !!(origin->flags & LEAKLINE_NATIVE_CUT);
    __atomic_fetch_add(&leakline_unwind_checks.walks, 1, __ATOMIC_RELAXED);
    if (prefix && broken) {
        __atomic_fetch_add(&leakline_unwind_checks.broken, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&leakline_unwind_checks.shorter, origin->native_count < count, __ATOMIC_RELAXED);
    } else if (!whole && __atomic_fetch_add(&leakline_unwind_checks.different, 1, __ATOMIC_RELAXED) < 3) tell(&walk, origin);
}
#endif
