/* Code objects by content: a walk meets the same few again and again, so their numbers are kept by address, and each hit is proved.
 *
 * An address proves nothing: a program that compiles and drops functions in a loop gets the same blocks from CPython's allocator again, for the
 * code object as for its name, file and line table. So a hit needs the same content, too: the bytes of all three are compared with what the
 * recording has. A table longer than LINES_WHOLE (the module of a large file) counts with its length and both its ends: an edited and recompiled
 * module at the very same four addresses, with the same name, first line and length of table, that differs only in the middle would show the
 * lines of its earlier version.
 */
#include "python_code.h"

#include <stdatomic.h>

#include "recording.h"

enum { KEPT = 1024, FILE_CHARACTERS = 4096, NAME_CHARACTERS = 1024, LINES_BYTES = 1 << 20, LINES_WHOLE = 4096 };

/* The code object and what it refers to; the shapes of these (length, kind), the first line; where the bytes are: in the recording all three one
 * after the other, and in each object. */
enum {
    CODE, FILE_NAME, NAME, LINES, FILE_SHAPE, NAME_SHAPE, LINES_SHAPE, FIRST_LINE, RECORDING,
    STORED, FILE_START, FILE_SIZE, NAME_START, NAME_SIZE, LINES_SIZE, WORDS
};

/* Written rarely, read always: a sequence lock, so that a reader needs no atomic operation but loads. */
struct kept {
    _Alignas(64) atomic_uint sequence; /* odd while somebody writes */
    atomic_uint number;
    _Atomic uint64_t words[WORDS];
};
static struct kept kept[KEPT];
static _Atomic uint32_t recording = 1; /* counts them: numbers of an earlier one are no hit */

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

/* A table that is too long for the recording counts as none: part of it would give wrong lines. */
static bool read_lines(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t object, uint32_t *length, bool *cut) {
    const struct leakline_python_layout *layout = &python->layout;
    if (!leakline_readable(reading, object, layout->bytes_data) ||
        leakline_word(object, layout->object_type) != (uintptr_t)python->names.bytes_type)
        return false;
    uintptr_t bytes = leakline_word(object, layout->bytes_length);
    *cut = bytes > LINES_BYTES;
    *length = *cut ? 0 : (uint32_t)bytes;
    return leakline_readable(reading, object + layout->bytes_data, *length);
}

/* Length, kind and whatever else is in the same word: that may change, and is then looked at anew. */
static uint64_t shape_of(const struct leakline_python_layout *layout, uintptr_t text) {
    return leakline_word(text, layout->text_length) ^ (uint64_t)leakline_half(text, layout->text_state) << 32;
}

/* The number of a code object that is not kept, and what is to be kept of it; STORED is 0 if it cannot be. */
static uint32_t number_of(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t code, uint64_t *words) {
    static const uint32_t file_kind[] = {[1] = LEAKLINE_TEXT_FILE_LATIN1, [2] = LEAKLINE_TEXT_FILE_UCS2, [4] = LEAKLINE_TEXT_FILE_UCS4};
    static const uint32_t name_kind[] = {[1] = LEAKLINE_TEXT_NAME_LATIN1, [2] = LEAKLINE_TEXT_NAME_UCS2, [4] = LEAKLINE_TEXT_NAME_UCS4};
    const struct leakline_python_layout *layout = &python->layout;
    const uintptr_t file_at = leakline_word(code, layout->code_file), name_at = leakline_word(code, layout->code_name);
    const uintptr_t lines_at = leakline_word(code, layout->code_lines);
    const uint64_t current = atomic_load_explicit(&recording, memory_order_relaxed); /* before it is numbered */
    struct text file, name;
    uint32_t length, stored[3];
    bool cut;
    if (!read_text(python, reading, file_at, FILE_CHARACTERS, &file) || !read_text(python, reading, name_at, NAME_CHARACTERS, &name) ||
        !read_lines(python, reading, lines_at, &length, &cut))
        return 0;
    const struct leakline_code_text text = {
        .file = (const char *)file.start,
        .name = (const char *)name.start,
        .file_length = size_of(&file),
        .name_length = size_of(&name),
        .first_line = leakline_half(code, layout->code_first_line),
        .python_version = python->version,
        .lines = (const unsigned char *)(lines_at + layout->bytes_data),
        .lines_length = length,
        .flags = file_kind[file.kind] | name_kind[name.kind] | (file.cut || name.cut || cut ? LEAKLINE_TEXT_CUT : 0),
    };
    const uint32_t number = leakline_code(code, &text);
    const char *bytes = number ? leakline_code_stored(number, stored) : NULL;
    if (bytes && (stored[0] != text.file_length || stored[1] != text.name_length || stored[2] != length))
        bytes = NULL; /* cut by the recording: nothing to compare with */
    memcpy(words,
           (const uint64_t[WORDS]){[CODE] = code, [FILE_NAME] = file_at, [NAME] = name_at, [LINES] = lines_at,
                                   [FILE_SHAPE] = shape_of(layout, file_at), [NAME_SHAPE] = shape_of(layout, name_at),
                                   [LINES_SHAPE] = leakline_word(lines_at, layout->bytes_length), [FIRST_LINE] = text.first_line,
                                   [RECORDING] = current, [STORED] = (uintptr_t)bytes, [FILE_START] = file.start,
                                   [FILE_SIZE] = text.file_length, [NAME_START] = name.start, [NAME_SIZE] = text.name_length,
                                   [LINES_SIZE] = length},
           WORDS * sizeof *words);
    return number;
}

static bool same_bytes(struct leakline_reading *reading, uintptr_t start, const char *stored, size_t size) {
    if (reading->careful && !leakline_python_probe(reading, start, size))
        return false;
    return memcmp((const void *)start, stored, size) == 0;
}

static bool same_lines(struct leakline_reading *reading, uintptr_t start, const char *stored, size_t size) {
    if (size <= LINES_WHOLE)
        return same_bytes(reading, start, stored, size);
    const size_t end = LINES_WHOLE / 2;
    return same_bytes(reading, start, stored, end) && same_bytes(reading, start + size - end, stored + size - end, end);
}

static uint64_t kept_word(const _Atomic uint64_t *word) { return atomic_load_explicit(word, memory_order_relaxed); }

/* The number, if it is this code object that is kept in the slot. Its address is known to be readable; those that it refers to are where they were
 * when they were. */
static uint32_t look_up(const struct leakline_python *python, struct leakline_reading *reading, struct kept *slot, uintptr_t code) {
    const struct leakline_python_layout *layout = &python->layout;
    unsigned sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
    uint32_t number = atomic_load_explicit(&slot->number, memory_order_relaxed);
    uint64_t file = kept_word(&slot->words[FILE_NAME]), name = kept_word(&slot->words[NAME]), lines = kept_word(&slot->words[LINES]);
    uint64_t different = kept_word(&slot->words[CODE]) ^ code;
    different |= file ^ leakline_word(code, layout->code_file);
    different |= name ^ leakline_word(code, layout->code_name);
    different |= lines ^ leakline_word(code, layout->code_lines);
    different |= kept_word(&slot->words[FIRST_LINE]) ^ leakline_half(code, layout->code_first_line);
    different |= kept_word(&slot->words[RECORDING]) ^ atomic_load_explicit(&recording, memory_order_relaxed);
    if (different || sequence & 1)
        return 0;
    if (reading->careful && (!leakline_readable(reading, file, layout->text_compact) || !leakline_readable(reading, name, layout->text_compact) ||
                             !leakline_readable(reading, lines, layout->bytes_data)))
        return 0;
    different = kept_word(&slot->words[FILE_SHAPE]) ^ shape_of(layout, file);
    different |= kept_word(&slot->words[NAME_SHAPE]) ^ shape_of(layout, name);
    different |= kept_word(&slot->words[LINES_SHAPE]) ^ leakline_word(lines, layout->bytes_length);
    uint64_t file_start = kept_word(&slot->words[FILE_START]), name_start = kept_word(&slot->words[NAME_START]);
    uint64_t file_size = kept_word(&slot->words[FILE_SIZE]), name_size = kept_word(&slot->words[NAME_SIZE]);
    uint64_t lines_size = kept_word(&slot->words[LINES_SIZE]);
    const char *stored = (const char *)kept_word(&slot->words[STORED]);
    atomic_thread_fence(memory_order_acquire);
    if (different || atomic_load_explicit(&slot->sequence, memory_order_relaxed) != sequence)
        return 0;
    return same_bytes(reading, name_start, stored + file_size, name_size) && same_bytes(reading, file_start, stored, file_size) &&
                   same_lines(reading, lines + layout->bytes_data, stored + file_size + name_size, lines_size)
               ? number
               : 0;
}

/* Gives up if somebody else writes the slot: another thread, or the code that this signal handler interrupted. */
static void keep(struct kept *slot, const uint64_t *words, uint32_t number) {
    unsigned sequence = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
    if (sequence & 1 || !atomic_compare_exchange_strong(&slot->sequence, &sequence, sequence + 1))
        return;
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&slot->number, number, memory_order_relaxed);
    for (int i = 0; i < WORDS; i++)
        atomic_store_explicit(&slot->words[i], words[i], memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence + 2, memory_order_release);
}

uint32_t leakline_python_code(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t code) {
    const struct leakline_python_layout *layout = &python->layout;
    if (!leakline_readable(reading, code, layout->code_lines + sizeof(uintptr_t)) ||
        leakline_word(code, layout->object_type) != (uintptr_t)python->names.code_type)
        return 0;
    struct kept *slot = &kept[(code >> 4 ^ code >> 14) % KEPT];
    uint32_t number = look_up(python, reading, slot, code);
    if (number)
        return number;
    uint64_t words[WORDS];
    number = number_of(python, reading, code, words);
    if (number && words[STORED])
        keep(slot, words, number);
    return number;
}

void leakline_python_code_forget(void) { atomic_fetch_add(&recording, 1); }
