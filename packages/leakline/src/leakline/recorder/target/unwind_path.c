/* Walks along a path that is expected (unwind_path.h): exact, as each word that the walk would load is compared. */
#define _GNU_SOURCE
#include "unwind_path.h"
#include "unwind_check.h"
#include "unwind_memory.h"

#include <errno.h>
#include <string.h>

enum { PLACES, POINTERS, FIRST_POINTER, HEADER, NO_POINTER = 0xffff };

/* False: not a whole number of words above the stack pointer, or too far. */
static bool as_word(uintptr_t bytes, uint16_t *word) {
    *word = (uint16_t)(bytes / sizeof(uintptr_t));
    return bytes % sizeof(uintptr_t) == 0 && bytes / sizeof(uintptr_t) < NO_POINTER;
}

uint16_t leakline_path_of(const struct leakline_walked *walked, const struct leakline_origin *origin, uint16_t words[LEAKLINE_PATH_WORDS]) {
    if (!walked->fits || origin->flags & (LEAKLINE_NATIVE_CUT | LEAKLINE_NATIVE_BROKEN) ||
        walked->frames > origin->native_count || walked->frames + 1u < origin->native_count ||
        HEADER + walked->frames + 2 * walked->pointers > LEAKLINE_PATH_WORDS)
        return 0;
    uint16_t *word = words + HEADER;
    words[PLACES] = (uint16_t)walked->frames;
    words[POINTERS] = (uint16_t)walked->pointers;
    words[FIRST_POINTER] = NO_POINTER;
    bool fits = !walked->uses_first_pointer || as_word(walked->fp - walked->sp, &words[FIRST_POINTER]);
    for (uint32_t i = 0; i < walked->frames; i++)
        fits &= as_word(walked->frame_places[i], word++);
    for (uint32_t i = 0; i < walked->pointers; i++) {
        fits &= as_word(walked->pointer_places[i], word++);
        fits &= as_word(walked->pointer_values[i] - walked->sp, word++);
    }
    return fits ? (uint16_t)(word - words) : 0;
}

static inline uintptr_t word_at(uintptr_t sp, uint16_t place) { return leakline_load(sp + place * sizeof(uintptr_t)); }

/* `span`: words above the stack pointer that are readable. */
static bool is_along(const struct leakline_registers *from, const struct leakline_path *path, uintptr_t span) {
    const uint16_t *words = path->words, *word = words + HEADER;
    unsigned places = words[PLACES], pointers = words[POINTERS];
    if (HEADER + places + 2 * pointers != path->word_count || places > path->native_count) return false;
    if (words[FIRST_POINTER] != NO_POINTER && from->fp != from->sp + words[FIRST_POINTER] * sizeof(uintptr_t)) return false;
    for (unsigned i = 0; i < places; i++) {
        uintptr_t frame = i + 1 < path->native_count ? path->native[i + 1] : 0; /* the outermost may have none */
        if (word[i] >= span || leakline_strip(word_at(from->sp, word[i])) != frame) return false;
    }
    for (word += places; pointers-- > 0; word += 2)
        if (word[0] >= span || word_at(from->sp, word[0]) != from->sp + word[1] * sizeof(uintptr_t)) return false;
    return true;
}

bool leakline_unwind_along(const struct leakline_registers *from, const struct leakline_path *path, struct leakline_origin *origin) {
    if (path->word_count < HEADER || path->native_count == 0 || path->native_count > LEAKLINE_NATIVE_FRAMES || path->native[0] != from->pc ||
        path->generation != leakline_libraries_generation())
        return false;
    int error = errno;
    struct leakline_stack stack;
    leakline_stack_at(from->sp, &stack);
    bool along = stack.own && is_along(from, path, (stack.high - from->sp) / sizeof(uintptr_t));
    if (along) {
        memcpy(origin->native, path->native, path->native_count * sizeof origin->native[0]);
        origin->native_count = path->native_count;
        origin->flags &= ~(uint32_t)(LEAKLINE_NATIVE_CUT | LEAKLINE_NATIVE_BROKEN);
        origin->generation = path->generation;
        origin->walk = NULL;
        origin->path_words = 0;
        leakline_unwind_check(from, origin);
    }
    errno = error;
    return along;
}
