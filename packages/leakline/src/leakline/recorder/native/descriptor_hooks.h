/* What a hooked library calls in place of eventfd, socket, close and the others of hooked_functions.h.
 *
 * Each does the system call and the record under one lock, keeps errno, and allocates nothing. Without a target table it is the
 * plain call.
 */
#ifndef LEAKLINE_DESCRIPTOR_HOOKS_H
#define LEAKLINE_DESCRIPTOR_HOOKS_H

#include "descriptor_table.h"

struct leakline_hook {
    const char *name;
    void *function;
};

extern const struct leakline_hook leakline_hooks[];
extern const unsigned leakline_hook_count;

/* The table that hooks write to from now on; NULL for none. */
LEAKLINE_PUBLIC void leakline_hook_target(struct leakline_table *table);
/* No target any more, if it is this table. */
LEAKLINE_PUBLIC void leakline_hook_target_end(const struct leakline_table *table);

#endif
