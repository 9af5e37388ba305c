/* The path of a walk: where it found its frames. Kept with each stack (recording_stacks.c), so that a walk which is expected to come to a stack
 * is not made: what it would load is compared.
 *
 * As in unwind_known.h a walk depends on where it starts, on the libraries, and on the words that it loads. Here all is relative to its first stack
 * pointer, so that one path serves every place and thread. Small: of return addresses only the place, of frame pointers place and value, in words.
 */
#ifndef LEAKLINE_UNWIND_PATH_H
#define LEAKLINE_UNWIND_PATH_H

#include "origin.h"
#include "unwind_known.h"

enum { LEAKLINE_PATH_WORDS = 64 }; /* few, as they lie on the stack of whoever opens */

struct leakline_path {
    uint64_t generation;       /* of the libraries that its addresses were last seen in */
    const uint64_t *native;    /* its frames */
    const uint16_t *words;     /* places, pointers, first pointer; place of each return address; place and value of each frame pointer */
    uint16_t native_count, word_count;
};

/* Gives how many words the path of a walk has, which filled the origin; 0: it has none (too long, or broken). */
uint16_t leakline_path_of(const struct leakline_walked *walked, const struct leakline_origin *origin, uint16_t words[LEAKLINE_PATH_WORDS]);

#endif
