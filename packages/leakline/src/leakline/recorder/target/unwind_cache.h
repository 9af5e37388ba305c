/* The rules found so far, by return address (unwind_rules.h): a table of fixed size that threads and signal handlers share without locks. */
#ifndef LEAKLINE_UNWIND_CACHE_H
#define LEAKLINE_UNWIND_CACHE_H

#include <stdint.h>

/* The rule for `pc` while `generation` (leakline_libraries_generation, read when the walk began) is current; made where it is not known. */
uint64_t leakline_rule(uintptr_t pc, uint64_t generation);

#endif
