/* A check of every walk against libgcc's unwinder, in builds with -DLEAKLINE_UNWIND_CHECK only. */
#ifndef LEAKLINE_UNWIND_CHECK_H
#define LEAKLINE_UNWIND_CHECK_H

#include "origin.h"

#ifdef LEAKLINE_UNWIND_CHECK
struct leakline_unwind_checks {
    /* broken: said so, and right as far as it goes; shorter: of these, where libgcc goes on */
    unsigned long walks, broken, shorter, different;
    bool off;                                /* for stacks that are broken on purpose: libgcc would crash on them */
};
extern struct leakline_unwind_checks leakline_unwind_checks;

void leakline_unwind_check(const struct leakline_registers *from, const struct leakline_origin *origin);
#else
static inline void leakline_unwind_check(const struct leakline_registers *from, const struct leakline_origin *origin) {
    (void)from;
    (void)origin;
}
#endif

#endif
