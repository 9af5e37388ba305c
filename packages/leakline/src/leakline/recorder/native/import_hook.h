/* Replaces what a loaded library imports: its own table only, so that nobody else's descriptors are ever seen. */
#ifndef LEAKLINE_IMPORT_HOOK_H
#define LEAKLINE_IMPORT_HOOK_H

#include "descriptor_table.h"

struct leakline_hooked {
    uint32_t libraries; /* loaded libraries whose name fits */
    uint32_t slots;     /* import slots that lead to our hooks now, earlier calls included */
    uint32_t failed;    /* slots that could not be written */
    int32_t error;      /* errno of the last failure */
    uint64_t functions; /* bit n: leakline_hook_name(n) is hooked */
};

/* Hooks every loaded library whose file name contains `name` (its whole path, when `name` has a slash). May be called again, for
 * copies that were loaded since. Other threads may be running in the library: each slot changes in one store. */
LEAKLINE_PUBLIC void leakline_hook_library(const char *name, struct leakline_hooked *result);
/* Points every import of `symbol` in those libraries at `function`, which may be anybody's and must stay loaded. What one was
 * pointed at before is stored in *previous (unless NULL) before it changes: with lazy binding it may not be the function itself, but
 * what looks it up. `result->slots` tells how many lead to `function` now. Hooking the library afterwards replaces it again. */
LEAKLINE_PUBLIC void leakline_replace_import(const char *name, const char *symbol, void *function, void **previous,
                                             struct leakline_hooked *result);
/* NULL beyond the last. */
LEAKLINE_PUBLIC const char *leakline_hook_name(unsigned index);

#endif
