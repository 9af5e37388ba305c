/* See call_frame.h. */
#include "call_frame.h"

/* MessagePack's first bytes */
enum { FIXARRAY = 0x90, FIXSTR = 0xa0, STR8 = 0xd9, UINT8 = 0xcc, UINT64 = 0xcf };
enum { CALL_TAG = 1, LEAST_FIELDS = 6 };

static uint64_t big_endian(const unsigned char *at, size_t size) {
    uint64_t value = 0;
    while (size--)
        value = value << 8 | *at++;
    return value;
}

uint64_t frame_id(const unsigned char *data, size_t size) {
    if (size < LEAST_FRAME || (data[0] & 0xf0) != FIXARRAY || data[1] > 0x7f || data[2] != UINT64)
        return 0;
    uint64_t id = big_endian(data + ID_AT, 8);
    return id & ID_BIT ? id : 0;
}

/* Where the string at `at` ends; NULL if there is none, or one longer than a name. */
static const unsigned char *after_name(const unsigned char *at, const unsigned char *end) {
    if (at == end)
        return NULL;
    size_t length = *at & 0x1f;
    if ((*at & 0xe0) == FIXSTR) {
        at++;
    } else {
        if (*at != STR8 || end - at < 2)
            return NULL;
        length = at[1];
        at += 2;
    }
    return length <= LONGEST_NAME && length <= (size_t)(end - at) ? at + length : NULL;
}

/* Reads a number >= 0 and returns where it ends; NULL if there is none. */
static const unsigned char *after_number(const unsigned char *at, const unsigned char *end, uint64_t *value) {
    if (at == end)
        return NULL;
    if (*at <= 0x7f) {
        *value = *at;
        return at + 1;
    }
    if (*at < UINT8 || *at > UINT64)
        return NULL;
    size_t size = (size_t)1 << (*at - UINT8);
    if ((size_t)(end - at) <= size)
        return NULL;
    *value = big_endian(at + 1, size);
    return at + 1 + size;
}

uint64_t call_id(const unsigned char *data, size_t size, uint64_t *timeout_ms) {
    uint64_t id = frame_id(data, size);
    if (!id || id & LABEL_BITS || data[0] < (FIXARRAY | LEAST_FIELDS) || data[1] != CALL_TAG)
        return 0;
    const unsigned char *end = data + size, *at = after_name(data + LEAST_FRAME, end);
    if (at)
        at = after_name(at, end);
    if (at)
        at = after_number(at, end, timeout_ms);
    return at && at < end ? id : 0; /* the arguments are the service's to read */
}

void write_id(unsigned char *data, uint64_t id) {
    for (int n = 7; n >= 0; n--, id >>= 8)
        data[ID_AT + n] = (unsigned char)id;
}

uint64_t labelled(uint64_t id, const unsigned char *routing_id, size_t size) {
    if (size != ROUTING_ID_SIZE || routing_id[0])
        return 0; /* the peer chose its own: no label fits */
    return id | big_endian(routing_id + 1, 4) << LABEL_SHIFT;
}

void routing_id_of(uint64_t id, unsigned char routing_id[ROUTING_ID_SIZE]) {
    uint32_t label = (uint32_t)(id >> LABEL_SHIFT);
    routing_id[0] = 0;
    for (int n = 4; n > 0; n--, label >>= 8)
        routing_id[n] = (unsigned char)label;
}
