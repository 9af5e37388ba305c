/* Walks that were made before: from the same place over the same words of the stack, a walk comes to the same frames.
 *
 * A walk by cached rules is a function of where it starts, of the libraries that are loaded, and of the words that it loads: each frame's
 * return address, and the saved frame pointers that a later frame's rule uses. A known walk keeps those words with their places. If each is
 * still there the frames are the same, exactly; if any differs the stack is walked. That costs two loads and a comparison a frame, and the
 * number of the stack (recording_stacks.c) need not be looked for either.
 *
 * Only walks on a thread's own stack are kept, all of whose words above the stack pointer are readable.
 */
#ifndef LEAKLINE_UNWIND_KNOWN_H
#define LEAKLINE_UNWIND_KNOWN_H

#include "origin.h"
#include "unwind_memory.h"

enum { LEAKLINE_KNOWN_FRAMES = LEAKLINE_NATIVE_FRAMES + 1, LEAKLINE_KNOWN_POINTERS = 24, LEAKLINE_NO_PLACE = 0xffffffff };

/* What a walk depended on. Places are bytes above the first stack pointer. */
struct leakline_walked {
    uint32_t frames, pointers;                  /* how many of each were loaded */
    bool first_pointer, uses_first_pointer;     /* the walk has the one that it began with; and its rules used it */
    bool fits;                                  /* all could be noted */
    uintptr_t sp, fp;                           /* that it began with */
    uint32_t pointer_place;                     /* of the frame pointer that the walk has now; LEAKLINE_NO_PLACE: none, or noted already */
    uint32_t frame_places[LEAKLINE_KNOWN_FRAMES];
    uintptr_t frame_values[LEAKLINE_KNOWN_FRAMES];
    uint32_t pointer_places[LEAKLINE_KNOWN_POINTERS];
    uintptr_t pointer_values[LEAKLINE_KNOWN_POINTERS];
};

enum leakline_known {
    LEAKLINE_KNOWN,   /* the origin is filled */
    LEAKLINE_UNKNOWN, /* to be walked */
    LEAKLINE_TO_NOTE, /* to be walked, and kept: this place was walked from before */
};

/* Gives the frames of a known walk, and the number of its stack (0: not known yet). */
enum leakline_known leakline_known_walk(const struct leakline_registers *from, const struct leakline_stack *stack, struct leakline_origin *origin);
/* Keeps a walk, which filled the origin. */
void leakline_known_keep(const struct leakline_registers *from, const struct leakline_walked *walked, struct leakline_origin *origin);

#endif
