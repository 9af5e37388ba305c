/* Attached: the import tables of all loaded libraries lead to our wrappers, until they are put back. Preloaded: nothing to do, the loader did it.
 *
 * May be called from any thread, also in a signal handler or inside malloc: it allocates nothing, and waits for no lock that is held over
 * anything but a walk through the list of libraries.
 */
#ifndef LEAKLINE_PATCH_H
#define LEAKLINE_PATCH_H

#include <stdbool.h>
#include <stdint.h>

/* Patches what is loaded now, and from then on what leakline_patch_all finds. 0, or minus the errno. */
int leakline_patch_begin(void);
/* Patches libraries that were loaded since. False: one is still being loaded; call again. */
bool leakline_patch_all(void);
/* Puts back what was in each slot that still leads to us. Libraries that were unloaded are forgotten. */
void leakline_patch_restore(void);
/* Slots that lead to us because we patched them. */
uint32_t leakline_patched_slots(void);

#endif
