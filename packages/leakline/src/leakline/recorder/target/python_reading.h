/* Reading CPython's memory without ever faulting.
 *
 * A thread that CPython has detached (it gave up the GIL: so it is in nearly every call into libc) has a frame chain that nobody changes,
 * and its frames keep their code objects alive: plain loads. A thread that is attached may be anywhere, in a signal handler even
 * between two stores of a frame that is half made: each page is probed before it is read.
 */
#ifndef LEAKLINE_PYTHON_READING_H
#define LEAKLINE_PYTHON_READING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LEAKLINE_PAGE = 4096, LEAKLINE_PROBED_PAGES = 32 };

struct leakline_reading {
    bool careful;
    uintptr_t probed[LEAKLINE_PROBED_PAGES]; /* pages that could be read, each at its number modulo the room; only set if careful */
};

/* Asks the kernel. */
bool leakline_python_probe(struct leakline_reading *reading, uintptr_t address, size_t size);

/* User space on x86-64 and aarch64: no pointer to an object is low, odd or beyond 2^47. */
static inline bool leakline_readable(struct leakline_reading *reading, uintptr_t address, size_t size) {
    if ((address & (7 | ~(uintptr_t)0 << 47)) || address < LEAKLINE_PAGE)
        return false;
    return !reading->careful || leakline_python_probe(reading, address, size);
}

static inline uintptr_t leakline_word(uintptr_t address, unsigned offset) {
    uintptr_t word;
    memcpy(&word, (const void *)(address + offset), sizeof word);
    return word;
}

static inline uint32_t leakline_half(uintptr_t address, unsigned offset) {
    uint32_t half;
    memcpy(&half, (const void *)(address + offset), sizeof half);
    return half;
}

static inline unsigned char leakline_byte(uintptr_t address, unsigned offset) { return *(const unsigned char *)(address + offset); }

#endif
