/* Code objects by content: a walk meets the same few again and again, so their numbers are kept by address, and each hit is proved.
 *
 * An address proves nothing: a program that compiles and drops functions in a loop gets the same blocks from CPython's allocator
 * again, for the code object as for its name, file and line table. So a hit needs the same content: the characters of file and name and
 * the bytes of the line table go into a digest of 64 bits on every call. A line table longer than DIGEST_WHOLE bytes (the module of a
 * large file) counts with its length and both its ends: an edited and recompiled module at the very same five addresses, of the same
 * name, first line and length of table, that differs only in the middle would show the line of its earlier version.
 */
#include "python_code.h"

#include <stdatomic.h>

#include "recording.h"

enum { KEPT = 1024, FILE_CHARACTERS = 4096, NAME_CHARACTERS = 1024, LINES_BYTES = 1 << 20, DIGEST_WHOLE = 512 };

/* Written rarely, read always: a sequence lock, so that a reader needs no atomic operation but loads. */
struct kept {
    atomic_uint sequence; /* odd while somebody writes */
    atomic_uint number;
    _Atomic uintptr_t code;
    _Atomic uint64_t digest;
};
static struct kept kept[KEPT];
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
    const char *characters;
    uint32_t length; /* bytes */
    unsigned kind;   /* bytes of a character; 0: UTF-8, which here means ASCII */
    bool cut;
};

static bool read_text(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t object, uint32_t most, struct text *text) {
    const struct leakline_python_layout *layout = &python->layout;
    if (!leakline_readable(reading, object, layout->text_compact) ||
        leakline_word(object, layout->object_type) != (uintptr_t)python->names.text_type)
        return false;
    uint32_t state = leakline_half(object, layout->text_state);
    unsigned kind = state >> 2 & 7;
    bool compact = state >> 5 & 1, ascii = state >> 6 & 1;
    uintptr_t length = leakline_word(object, layout->text_length);
    if (!compact || (kind != 1 && kind != 2 && kind != 4) || (ascii && kind != 1) || (intptr_t)length < 0)
        return false;
    text->cut = length > most;
    text->length = (uint32_t)(text->cut ? most : length) * kind;
    text->kind = ascii ? 0 : kind;
    uintptr_t start = object + (ascii ? layout->text_ascii : layout->text_compact);
    text->characters = (const char *)start;
    return leakline_readable(reading, start, text->length);
}

static bool read_lines(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t object, struct leakline_code_text *text) {
    const struct leakline_python_layout *layout = &python->layout;
    if (!leakline_readable(reading, object, layout->bytes_data) ||
        leakline_word(object, layout->object_type) != (uintptr_t)python->names.bytes_type)
        return false;
    uintptr_t length = leakline_word(object, layout->bytes_length);
    if ((intptr_t)length < 0)
        return false;
    if (length > LINES_BYTES) { /* part of a table would give wrong lines */
        text->flags |= LEAKLINE_TEXT_CUT;
        length = 0;
    }
    text->lines = (const unsigned char *)(object + layout->bytes_data);
    text->lines_length = (uint32_t)length;
    return leakline_readable(reading, object + layout->bytes_data, length);
}

static bool read_code(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t code, struct leakline_code_text *text) {
    static const uint32_t file_kind[] = {[1] = LEAKLINE_TEXT_FILE_LATIN1, [2] = LEAKLINE_TEXT_FILE_UCS2, [4] = LEAKLINE_TEXT_FILE_UCS4};
    static const uint32_t name_kind[] = {[1] = LEAKLINE_TEXT_NAME_LATIN1, [2] = LEAKLINE_TEXT_NAME_UCS2, [4] = LEAKLINE_TEXT_NAME_UCS4};
    const struct leakline_python_layout *layout = &python->layout;
    struct text file, name;
    if (!leakline_readable(reading, code, layout->code_lines + sizeof(uintptr_t)) ||
        leakline_word(code, layout->object_type) != (uintptr_t)python->names.code_type ||
        !read_text(python, reading, leakline_word(code, layout->code_file), FILE_CHARACTERS, &file) ||
        !read_text(python, reading, leakline_word(code, layout->code_name), NAME_CHARACTERS, &name) ||
        !read_lines(python, reading, leakline_word(code, layout->code_lines), text))
        return false;
    text->file = file.characters;
    text->file_length = file.length;
    text->name = name.characters;
    text->name_length = name.length;
    text->first_line = leakline_half(code, layout->code_first_line);
    text->python_version = python->version;
    text->flags |= file_kind[file.kind] | name_kind[name.kind] | (file.cut || name.cut ? LEAKLINE_TEXT_CUT : 0);
    return true;
}

static uint64_t digest_of(const struct leakline_code_text *text) {
    uint64_t seed = text->first_line | (uint64_t)text->flags << 32;
    seed ^= (uint64_t)atomic_load_explicit(&recording, memory_order_relaxed) << 40;
    seed = digest(text->name, text->name_length, seed);
    seed = digest(text->file, text->file_length, seed);
    if (text->lines_length <= DIGEST_WHOLE)
        return digest(text->lines, text->lines_length, seed);
    seed = digest(text->lines, DIGEST_WHOLE / 2, seed ^ text->lines_length);
    return digest(text->lines + text->lines_length - DIGEST_WHOLE / 2, DIGEST_WHOLE / 2, seed);
}

static uint32_t look_up(struct kept *slot, uintptr_t code, uint64_t content) {
    unsigned sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
    uint32_t number = atomic_load_explicit(&slot->number, memory_order_relaxed);
    bool same = atomic_load_explicit(&slot->code, memory_order_relaxed) == code &&
                atomic_load_explicit(&slot->digest, memory_order_relaxed) == content;
    atomic_thread_fence(memory_order_acquire);
    return same && !(sequence & 1) && atomic_load_explicit(&slot->sequence, memory_order_relaxed) == sequence ? number : 0;
}

/* Gives up if somebody else writes the slot: another thread, or the code that this signal handler interrupted. */
static void keep(struct kept *slot, uintptr_t code, uint64_t content, uint32_t number) {
    unsigned sequence = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
    if (sequence & 1 || !atomic_compare_exchange_strong(&slot->sequence, &sequence, sequence + 1))
        return;
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&slot->number, number, memory_order_relaxed);
    atomic_store_explicit(&slot->code, code, memory_order_relaxed);
    atomic_store_explicit(&slot->digest, content, memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence + 2, memory_order_release);
}

uint32_t leakline_python_code(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t code) {
    struct leakline_code_text text = {0};
    if (!read_code(python, reading, code, &text))
        return 0;
    uint64_t content = digest_of(&text);
    struct kept *slot = &kept[(code >> 4 ^ code >> 14) % KEPT];
    uint32_t number = look_up(slot, code, content);
    if (number)
        return number;
    number = leakline_code(code, &text);
    if (number)
        keep(slot, code, content, number);
    return number;
}

void leakline_python_code_forget(void) { atomic_fetch_add(&recording, 1); }
