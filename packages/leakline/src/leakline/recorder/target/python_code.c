/* Code objects by content: a walk meets the same few again and again, so their numbers are kept by address, and each hit is proved.
 *
 * An address proves nothing: a program that compiles and drops functions in a loop gets the same blocks from CPython's allocator
 * again, for the code object as for its name, file and line table. So a hit needs the same content, too. Of file and name: the hash that
 * CPython keeps with a string (keyed, 64 bits, of all characters), or where it has none yet a digest of the characters. Of the rest: a
 * digest of the first line and the line table. A table longer than DIGEST_WHOLE bytes (the module of a large file) counts with its length
 * and both its ends: an edited and recompiled module at the very same four addresses, with the same name, first line and length of table,
 * that differs only in the middle would show the lines of its earlier version. A wrong name takes a collision of 64 bits.
 */
#include "python_code.h"

#include <stdatomic.h>

#include "recording.h"

enum { KEPT = 1024, FILE_CHARACTERS = 4096, NAME_CHARACTERS = 1024, LINES_BYTES = 1 << 20, DIGEST_WHOLE = 512, DIGEST_END = 128 };

/* What is compared: the addresses of the four objects, and what is in them. */
enum { CODE, FILE_NAME, NAME, LINES, FILE_CONTENT, NAME_CONTENT, LINES_CONTENT, WORDS };

/* One cache line. Written rarely, read always: a sequence lock, so that a reader needs no atomic operation but loads. */
struct kept {
    atomic_uint sequence; /* odd while somebody writes */
    atomic_uint number;
    _Atomic uint64_t proof[WORDS];
};
static _Alignas(64) struct kept kept[KEPT];
static _Atomic uint32_t recording = 1; /* counts them: numbers of an earlier one are no hit */

static uint64_t mix(uint64_t a, uint64_t b) {
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t load(const unsigned char *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* Two multiplications a round that do not wait for each other; the end is read as the last 32 bytes, overlapping. */
static uint64_t digest(const void *data, size_t size, uint64_t seed) {
    const uint64_t k0 = 0xa0761d6478bd642full, k1 = 0xe7037ed1a0b428dbull;
    const unsigned char *bytes = data;
    uint64_t a = seed ^ k0, b = size ^ k1;
    if (size < 32) {
        unsigned char end[32] = {0};
        memcpy(end, bytes, size);
        a = mix(a ^ load(end), k0 ^ load(end + 8));
        b = mix(b ^ load(end + 16), k1 ^ load(end + 24));
        return mix(a ^ k1, b ^ k0);
    }
    for (size_t i = 0; i + 32 < size; i += 32) {
        a = mix(a ^ load(bytes + i), k0 ^ load(bytes + i + 8));
        b = mix(b ^ load(bytes + i + 16), k1 ^ load(bytes + i + 24));
    }
    a = mix(a ^ load(bytes + size - 32), k0 ^ load(bytes + size - 24));
    b = mix(b ^ load(bytes + size - 16), k1 ^ load(bytes + size - 8));
    return mix(a ^ k1, b ^ k0);
}

struct text {
    uintptr_t start;
    uint32_t length; /* characters */
    uint32_t kind;   /* bytes of a character; 0: ASCII */
    bool cut;
};

static uint32_t size_of(const struct text *text) { return text->length * (text->kind ? text->kind : 1); }

static bool read_text(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t object, uint32_t most, struct text *text) {
    const struct leakline_python_layout *layout = &python->layout;
    if (!leakline_readable(reading, object, layout->text_compact) ||
        leakline_word(object, layout->object_type) != (uintptr_t)python->names.text_type)
        return false;
    uint32_t state = leakline_half(object, layout->text_state);
    if (!(state & 0xfc)) /* `interned` is a byte or two instead of two bits: free-threaded builds, later versions */
        state >>= state & 0xff00 ? 6 : 14;
    unsigned kind = state >> 2 & 7;
    bool compact = state >> 5 & 1, ascii = state >> 6 & 1;
    uintptr_t length = leakline_word(object, layout->text_length);
    if (!compact || (kind != 1 && kind != 2 && kind != 4) || (ascii && kind != 1) || (intptr_t)length < 0)
        return false;
    text->cut = length > most;
    text->length = (uint32_t)(text->cut ? most : length);
    text->kind = ascii ? 0 : kind;
    text->start = object + (ascii ? layout->text_ascii : layout->text_compact);
    return leakline_readable(reading, text->start, size_of(text));
}

/* False: it cannot be read. */
static bool prove_text(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t object, uint64_t *content) {
    const unsigned hash = python->layout.text_length + 8u;
    if (!leakline_readable(reading, object, hash + 8))
        return false;
    *content = leakline_word(object, hash);
    if (*content != UINT64_MAX)
        return true;
    struct text text;
    if (!read_text(python, reading, object, FILE_CHARACTERS, &text))
        return false;
    *content = digest((const void *)text.start, size_of(&text), text.length | (uint64_t)text.kind << 32);
    return true;
}

/* A table that is too long for the recording counts as none: part of it would give wrong lines. */
static bool read_lines(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t object, uint32_t *length) {
    const struct leakline_python_layout *layout = &python->layout;
    if (!leakline_readable(reading, object, layout->bytes_data))
        return false;
    uintptr_t bytes = leakline_word(object, layout->bytes_length);
    *length = (uint32_t)(bytes > LINES_BYTES ? 0 : bytes);
    return leakline_readable(reading, object + layout->bytes_data, *length);
}

static bool prove_lines(const struct leakline_python *python, struct leakline_reading *reading, const uint64_t *proof, uint64_t *content) {
    uint32_t length;
    if (!read_lines(python, reading, proof[LINES], &length))
        return false;
    const unsigned char *lines = (const unsigned char *)(proof[LINES] + python->layout.bytes_data);
    uint64_t seed = (uint64_t)atomic_load_explicit(&recording, memory_order_relaxed) << 32;
    seed ^= leakline_half(proof[CODE], python->layout.code_first_line);
    if (length > DIGEST_WHOLE) {
        seed = digest(lines, DIGEST_END, seed ^ (uint64_t)length << 16);
        lines += length - DIGEST_END;
        length = DIGEST_END;
    }
    *content = digest(lines, length, seed);
    return true;
}

static bool prove(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t code, uint64_t *proof) {
    const struct leakline_python_layout *layout = &python->layout;
    if (!leakline_readable(reading, code, layout->code_lines + sizeof(uintptr_t)) ||
        leakline_word(code, layout->object_type) != (uintptr_t)python->names.code_type)
        return false;
    proof[CODE] = code;
    proof[FILE_NAME] = leakline_word(code, layout->code_file);
    proof[NAME] = leakline_word(code, layout->code_name);
    proof[LINES] = leakline_word(code, layout->code_lines);
    if (proof[FILE_NAME] != reading->file) {
        if (!prove_text(python, reading, proof[FILE_NAME], &reading->file_content))
            return false;
        reading->file = proof[FILE_NAME];
    }
    proof[FILE_CONTENT] = reading->file_content;
    return prove_text(python, reading, proof[NAME], &proof[NAME_CONTENT]) &&
           prove_lines(python, reading, proof, &proof[LINES_CONTENT]);
}

static uint32_t number_of(const struct leakline_python *python, struct leakline_reading *reading, const uint64_t *proof) {
    static const uint32_t file_kind[] = {[1] = LEAKLINE_TEXT_FILE_LATIN1, [2] = LEAKLINE_TEXT_FILE_UCS2, [4] = LEAKLINE_TEXT_FILE_UCS4};
    static const uint32_t name_kind[] = {[1] = LEAKLINE_TEXT_NAME_LATIN1, [2] = LEAKLINE_TEXT_NAME_UCS2, [4] = LEAKLINE_TEXT_NAME_UCS4};
    struct text file, name;
    uint32_t lines_length;
    if (!read_text(python, reading, proof[FILE_NAME], FILE_CHARACTERS, &file) ||
        !read_text(python, reading, proof[NAME], NAME_CHARACTERS, &name) || !read_lines(python, reading, proof[LINES], &lines_length) ||
        leakline_word(proof[LINES], python->layout.object_type) != (uintptr_t)python->names.bytes_type)
        return 0;
    const bool cut = file.cut || name.cut || leakline_word(proof[LINES], python->layout.bytes_length) != lines_length;
    const struct leakline_code_text text = {
        .file = (const char *)file.start,
        .name = (const char *)name.start,
        .file_length = size_of(&file),
        .name_length = size_of(&name),
        .first_line = leakline_half(proof[CODE], python->layout.code_first_line),
        .python_version = python->version,
        .lines = (const unsigned char *)(proof[LINES] + python->layout.bytes_data),
        .lines_length = lines_length,
        .flags = file_kind[file.kind] | name_kind[name.kind] | (cut ? LEAKLINE_TEXT_CUT : 0),
    };
    return leakline_code(proof[CODE], &text);
}

static uint32_t look_up(struct kept *slot, const uint64_t *proof) {
    uint64_t different = 0;
    unsigned sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
    uint32_t number = atomic_load_explicit(&slot->number, memory_order_relaxed);
#pragma GCC unroll 8
    for (int i = 0; i < WORDS; i++)
        different |= atomic_load_explicit(&slot->proof[i], memory_order_relaxed) ^ proof[i];
    atomic_thread_fence(memory_order_acquire);
    return !different && !(sequence & 1) && atomic_load_explicit(&slot->sequence, memory_order_relaxed) == sequence ? number : 0;
}

/* Gives up if somebody else writes the slot: another thread, or the code that this signal handler interrupted. */
static void keep(struct kept *slot, const uint64_t *proof, uint32_t number) {
    unsigned sequence = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
    if (sequence & 1 || !atomic_compare_exchange_strong(&slot->sequence, &sequence, sequence + 1))
        return;
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&slot->number, number, memory_order_relaxed);
    for (int i = 0; i < WORDS; i++)
        atomic_store_explicit(&slot->proof[i], proof[i], memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence + 2, memory_order_release);
}

uint32_t leakline_python_code(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t code) {
    uint64_t proof[WORDS];
    if (!prove(python, reading, code, proof))
        return 0;
    struct kept *slot = &kept[(code >> 4 ^ code >> 14) % KEPT];
    uint32_t number = look_up(slot, proof);
    if (number)
        return number;
    number = number_of(python, reading, proof);
    if (number)
        keep(slot, proof, number);
    return number;
}

void leakline_python_code_forget(void) { atomic_fetch_add(&recording, 1); }
