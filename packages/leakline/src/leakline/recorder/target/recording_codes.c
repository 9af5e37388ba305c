/* Python's code objects, by content, and the text that they and libraries refer to. Like stacks: written first, then put into the index. */
#include <string.h>

#include "recording_private.h"

#define INDEX_SIZE (2u * LEAKLINE_CODES)
#define PROBES 512u
#define HINTS 4096u
#define NAME_LONGEST 4096u /* bytes */
#define LINES_LONGEST 65536u

/* A hint where to look: the number that a code object at this address had. Private memory, in any order: what it says is compared. */
static uint32_t hints[HINTS];

void leakline_codes_forget(void) { memset(hints, 0, sizeof hints); }

uint64_t leakline_hash(uint64_t hash, const void *data, uint64_t size) {
    const unsigned char *bytes = data;
    const uint64_t factor = UINT64_C(0x9e3779b97f4a7c15);
    for (; size >= 8; size -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * factor;
        hash ^= hash >> 32;
    }
    uint64_t rest = size;
    memcpy(&rest, bytes, size); /* at most 7 bytes; without any, the number 0 */
    hash = (hash ^ rest) * factor;
    return hash ^ hash >> 29;
}

uint64_t leakline_text_room(uint64_t size) {
    uint64_t *used = &leakline_header()->text_used, before = __atomic_load_n(used, __ATOMIC_RELAXED);
    do {
        if (before + size > LEAKLINE_TEXT_SIZE)
            return UINT64_MAX;
    } while (!__atomic_compare_exchange_n(used, &before, before + size, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return size == 0 || leakline_stored(LEAKLINE_TEXT_AT + before, size) ? before : UINT64_MAX;
}

static struct leakline_code_record *record_at(uint32_t code) {
    return (struct leakline_code_record *)(leakline_recording.base + LEAKLINE_CODES_AT) + (code - 1u);
}

/* Lengths that are as long as may be. */
static struct leakline_code_text bounded(const struct leakline_code_text *text) {
    struct leakline_code_text cut = *text;
    if (cut.file_length > NAME_LONGEST)
        cut.file_length = NAME_LONGEST, cut.flags |= LEAKLINE_TEXT_CUT;
    if (cut.name_length > NAME_LONGEST)
        cut.name_length = NAME_LONGEST, cut.flags |= LEAKLINE_TEXT_CUT;
    if (cut.lines_length > LINES_LONGEST)
        cut.lines_length = LINES_LONGEST, cut.flags |= LEAKLINE_TEXT_CUT;
    return cut;
}

static bool is_code(const struct leakline_code_record *record, const struct leakline_code_text *text) {
    if (record->first_line != text->first_line || record->file_length != text->file_length || record->name_length != text->name_length ||
        record->lines_length != text->lines_length || record->python_version != text->python_version || record->flags != text->flags)
        return false;
    const char *stored = leakline_recording.base + LEAKLINE_TEXT_AT + record->text;
    return memcmp(stored, text->file, text->file_length) == 0 &&
           memcmp(stored + text->file_length, text->name, text->name_length) == 0 &&
           memcmp(stored + text->file_length + text->name_length, text->lines, text->lines_length) == 0;
}

static uint32_t write_code(uint64_t hash, const struct leakline_code_text *text) {
    uint64_t room = leakline_text_room((uint64_t)text->file_length + text->name_length + text->lines_length);
    if (room == UINT64_MAX)
        return 0;
    uint32_t *bound = &leakline_header()->code_bound, code = __atomic_load_n(bound, __ATOMIC_RELAXED);
    do {
        if (code >= LEAKLINE_CODES)
            return 0;
    } while (!__atomic_compare_exchange_n(bound, &code, code + 1u, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    code++;
    struct leakline_code_record *record = record_at(code);
    if (!leakline_stored((uint64_t)((char *)record - leakline_recording.base), sizeof *record))
        return 0;
    char *place = leakline_recording.base + LEAKLINE_TEXT_AT + room;
    memcpy(place, text->file, text->file_length);
    memcpy(place + text->file_length, text->name, text->name_length);
    memcpy(place + text->file_length + text->name_length, text->lines, text->lines_length);
    *record = (struct leakline_code_record){.first_line = text->first_line,
                                            .hash = hash,
                                            .text = room,
                                            .file_length = text->file_length,
                                            .name_length = text->name_length,
                                            .lines_length = text->lines_length,
                                            .python_version = text->python_version,
                                            .flags = text->flags};
    __atomic_store_n(&record->state, LEAKLINE_RECORD_READY, __ATOMIC_RELEASE);
    return code;
}

static uint32_t find_or_write(const struct leakline_code_text *text) {
    uint32_t *index = (uint32_t *)(leakline_recording.base + LEAKLINE_CODE_INDEX_AT);
    uint64_t hash = leakline_hash(text->first_line, text->file, text->file_length);
    hash = leakline_hash(hash, text->name, text->name_length);
    hash = leakline_hash(hash, text->lines, text->lines_length);
    uint32_t written = 0;
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        uint64_t place = (hash + probe) & (INDEX_SIZE - 1u);
        if (!leakline_stored(LEAKLINE_CODE_INDEX_AT + place * sizeof *index, sizeof *index))
            break;
        uint32_t code = __atomic_load_n(&index[place], __ATOMIC_ACQUIRE);
        if (code == 0) {
            if (!written && !(written = write_code(hash, text)))
                break;
            if (__atomic_compare_exchange_n(&index[place], &code, written, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                return written;
        }
        if (record_at(code)->hash == hash && is_code(record_at(code), text))
            return code;
    }
    __atomic_fetch_add(&leakline_header()->codes_full, 1, __ATOMIC_RELAXED);
    return 0;
}

uint32_t leakline_code(uintptr_t address, const struct leakline_code_text *given) {
    struct leakline_code_text text = bounded(given);
    uint32_t *hint = &hints[(address >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 52];
    uint32_t code = __atomic_load_n(hint, __ATOMIC_ACQUIRE);
    if (code && is_code(record_at(code), &text))
        return code;
    code = find_or_write(&text);
    __atomic_store_n(hint, code, __ATOMIC_RELEASE);
    return code;
}

const char *leakline_code_stored(uint32_t code, uint32_t lengths[3]) {
    const struct leakline_code_record *record = record_at(code);
    lengths[0] = record->file_length, lengths[1] = record->name_length, lengths[2] = record->lines_length;
    return leakline_recording.base + LEAKLINE_TEXT_AT + record->text;
}
