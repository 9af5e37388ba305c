/* Finds the frame description of an address in .eh_frame (unwind_find.h).
 *
 * The sections are mapped as long as their library is, and a library on the calling stack is not unloaded; they are read in place. Every
 * read is bounded by the length of its entry. Formats: Linux Standard Base, .eh_frame and .eh_frame_hdr.
 */
#define _GNU_SOURCE
#include "unwind_find.h"
#include "unwind_libraries.h"

#include <stddef.h>
#include <string.h>

uint64_t leakline_uleb128(const uint8_t **at, const uint8_t *end) {
    uint64_t value = 0;
    for (unsigned shift = 0; *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) break;
    }
    return value;
}

int64_t leakline_sleb128(const uint8_t **at, const uint8_t *end) {
    uint64_t value = 0;
    unsigned shift = 0;
    while (*at < end) {
        uint8_t byte = *(*at)++;
        if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
        if (byte & 0x80) continue;
        if (shift < 64 && (byte & 0x40)) value |= ~(uint64_t)0 << shift;
        break;
    }
    return (int64_t)value;
}

#define FIXED(type)                                                                                                                        \
    static inline type load_##type(const uint8_t *at) {                                                                                    \
        type value;                                                                                                                        \
        memcpy(&value, at, sizeof value);                                                                                                  \
        return value;                                                                                                                      \
    }
FIXED(uint16_t)
FIXED(int16_t)
FIXED(uint32_t)
FIXED(int32_t)
FIXED(uint64_t)

/* --- pointers */

enum { ENCODED_OMIT = 0xff, ENCODED_INDIRECT = 0x80, ENCODED_PC = 0x10, ENCODED_DATA = 0x30, ENCODED_TABLE = ENCODED_DATA | 0x0b };

/* A pointer of the given encoding; `data`: what "data relative" is relative to. False for encodings that .eh_frame does not use. */
static bool read_pointer(const uint8_t **at, const uint8_t *end, uint8_t encoding, uintptr_t data, uintptr_t *pointer) {
    static const uint8_t sizes[16] = {8, 0, 2, 4, 8, 0, 0, 0, 0, 0, 2, 4, 8, 0, 0, 0};
    const uint8_t *start = *at;
    uint8_t format = encoding & 0x0f, size = sizes[format];
    if (encoding & ENCODED_INDIRECT) return false;
    if (format == 1) *pointer = leakline_uleb128(at, end);
    else if (format == 9) *pointer = (uintptr_t)leakline_sleb128(at, end);
    else {
        if (size == 0 || end - start < size) return false;
        *at += size;
        if (size == 8) *pointer = load_uint64_t(start);
        else if (size == 4) *pointer = format & 8 ? (uintptr_t)(intptr_t)load_int32_t(start) : load_uint32_t(start);
        else *pointer = format & 8 ? (uintptr_t)(intptr_t)load_int16_t(start) : load_uint16_t(start);
    }
    switch (encoding & 0x70) {
    case 0: return true;
    case ENCODED_PC: *pointer += (uintptr_t)start; return true;
    case ENCODED_DATA: *pointer += data; return true;
    default: return false;
    }
}

/* --- entries: a common one (CIE), and a description (FDE) for each function */

struct entry {
    const uint8_t *at, *end; /* behind the length */
};

/* The entry at `at`; false at the terminator. */
static bool read_entry(const uint8_t *at, struct entry *entry) {
    uint64_t length = load_uint32_t(at);
    entry->at = at + 4;
    if (length == 0xffffffff) {
        length = load_uint64_t(entry->at);
        entry->at += 8;
    }
    entry->end = entry->at + length;
    return length != 0;
}

/* The letters behind 'z': what the data of the augmentation holds. */
static bool read_augmentation(const char *letters, const uint8_t **at, struct leakline_common *common) {
    const uint8_t *data, *end;
    uint64_t length = leakline_uleb128(at, common->end);
    data = *at;
    if (length > (uint64_t)(common->end - data)) return false;
    *at = end = data + length;
    for (; *letters != '\0'; letters++) {
        uintptr_t personality;
        if (*letters == 'S') common->signal = true;
        else if (*letters == 'B') continue; /* aarch64: return addresses are signed with key B */
        else if (data >= end) return false;
        else if (*letters == 'R') common->pointer_encoding = *data++;
        else if (*letters == 'L') data++;
        else if (*letters == 'P') {
            uint8_t encoding = *data++ & (uint8_t)~ENCODED_INDIRECT;
            if (!read_pointer(&data, end, encoding, 0, &personality)) return false;
        } else return false;
    }
    return true;
}

static bool read_common(const uint8_t *start, struct leakline_common *common) {
    struct entry entry;
    *common = (struct leakline_common){0};
    if (!read_entry(start, &entry) || entry.end - entry.at < 8 || load_uint32_t(entry.at) != 0) return false;
    const uint8_t *at = entry.at + 4;
    uint8_t version = *at++;
    const char *letters = (const char *)at;
    if (version != 1 && version != 3) return false;
    at = memchr(at, 0, (size_t)(entry.end - at));
    if (at == NULL) return false;
    at++;
    common->end = entry.end;
    common->code_factor = leakline_uleb128(&at, entry.end);
    common->data_factor = leakline_sleb128(&at, entry.end);
    if (at >= entry.end) return false;
    common->return_register = version == 1 ? *at++ : leakline_uleb128(&at, entry.end);
    if (*letters == 'z') {
        common->sized = true;
        if (!read_augmentation(letters + 1, &at, common)) return false;
    } else if (*letters != '\0') return false;
    common->at = at;
    return common->return_register == LEAKLINE_RA;
}

static bool read_description(const struct entry *entry, struct leakline_description *description) {
    const uint8_t *at = entry->at;
    if (entry->end - at < 4) return false;
    uint32_t back = load_uint32_t(at);
    if (back == 0 || !read_common(at - back, &description->common)) return false;
    at += 4;
    uint8_t encoding = description->common.pointer_encoding;
    if (!read_pointer(&at, entry->end, encoding, 0, &description->start)) return false;
    if (!read_pointer(&at, entry->end, encoding & 0x0f, 0, &description->size)) return false;
    if (description->common.sized) {
        uint64_t length = leakline_uleb128(&at, entry->end);
        if (length > (uint64_t)(entry->end - at)) return false;
        at += length;
    }
    description->at = at;
    description->end = entry->end;
    return true;
}

/* One after the other, where there is no table to search. */
static bool find_by_order(const uint8_t *at, uintptr_t address, struct leakline_description *description) {
    struct entry entry;
    for (; read_entry(at, &entry); at = entry.end) {
        if (load_uint32_t(entry.at) == 0 || !read_description(&entry, description)) continue;
        if (address - description->start < description->size) return true;
    }
    return false;
}

/* Pairs of the start of a function and of its description, sorted, relative to the header. */
static bool find_by_table(const uint8_t *header, const uint8_t *table, uintptr_t count, uintptr_t address, struct leakline_description *description) {
    uintptr_t low = 0, high = count;
    while (low < high) {
        uintptr_t middle = low + (high - low) / 2;
        if ((uintptr_t)header + (uintptr_t)(intptr_t)load_int32_t(table + 8 * middle) <= address) low = middle + 1;
        else high = middle;
    }
    struct entry entry;
    if (low == 0 || !read_entry(header + load_int32_t(table + 8 * (low - 1) + 4), &entry)) return false;
    return read_description(&entry, description) && address - description->start < description->size;
}

bool leakline_find_description(uintptr_t address, struct leakline_description *description) {
    const uint8_t *header;
    if (!leakline_find_library(address, &header) || header == NULL || header[0] != 1) return false;
    const uint8_t *at = header + 4, *end = header + 4 + 16;
    uintptr_t frames, count;
    if (!read_pointer(&at, end, header[1], (uintptr_t)header, &frames)) return false;
    if (header[2] == ENCODED_OMIT || header[3] != ENCODED_TABLE || !read_pointer(&at, end, header[2], (uintptr_t)header, &count))
        return find_by_order((const uint8_t *)frames, address, description);
    return find_by_table(header, at, count, address, description);
}
