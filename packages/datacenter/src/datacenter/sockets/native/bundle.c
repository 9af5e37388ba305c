/* See bundle.h. */
#include "bundle.h"

#include <stdint.h>
#include <string.h>

enum { FIRST = 1 }; /* where the first length is */

static size_t read_length(const unsigned char *at) {
    return at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
}

static void write_length(unsigned char *at, size_t length) {
    for (int n = 0; n < BUNDLE_LENGTH; n++, length >>= 8)
        at[n] = (unsigned char)length;
}

bool bundle_add(struct bundle *bundle, const unsigned char *frame, size_t size) {
    if (size == 0 || size > BUNDLE_FRAME_BYTES || frame[0] == BUNDLE_MARK || bundle->count == BUNDLE_FRAMES)
        return false;
    size_t at = bundle->count ? bundle->size : FIRST;
    if (at + BUNDLE_LENGTH + size > BUNDLE_BYTES)
        return false;
    bundle->bytes[0] = BUNDLE_MARK;
    write_length(bundle->bytes + at, size);
    memcpy(bundle->bytes + at + BUNDLE_LENGTH, frame, size);
    bundle->size = at + BUNDLE_LENGTH + size;
    bundle->count++;
    return true;
}

bool bundle_may(const unsigned char *frame, size_t size) {
    enum { REPLY_HEAD = 11, ARRAY = 0x90, LONGEST_TAG = 0x7f, UINT64 = 0xcf }; /* MessagePack: [tag, id, … */
    return size >= REPLY_HEAD && (frame[0] & 0xf0) == ARRAY && frame[1] <= LONGEST_TAG && frame[2] == UINT64 && frame[3] & 0x80;
}

const unsigned char *bundle_message(const struct bundle *bundle, size_t *size) {
    size_t head = bundle->count == 1 ? FIRST + BUNDLE_LENGTH : 0;
    *size = bundle->size - head;
    return bundle->bytes + head;
}

unsigned bundle_frames(const unsigned char *message, size_t size) {
    if (!bundle_is(message, size))
        return 1;
    if (size > BUNDLE_BYTES)
        return 0;
    unsigned count = 0;
    for (size_t at = FIRST; at < size; count++) {
        if (count == BUNDLE_FRAMES || size - at <= BUNDLE_LENGTH)
            return 0;
        size_t length = read_length(message + at);
        at += BUNDLE_LENGTH;
        if (length == 0 || length > size - at || message[at] == BUNDLE_MARK)
            return 0;
        at += length;
    }
    return count;
}

unsigned char *bundle_next(unsigned char *message, size_t size, size_t *at, size_t *frame_size) {
    if (!bundle_is(message, size)) {
        *frame_size = size;
        return message;
    }
    unsigned char *length = message + (*at ? *at : FIRST), *frame = length + BUNDLE_LENGTH;
    *frame_size = read_length(length);
    *at = (size_t)(frame - message) + *frame_size;
    return frame;
}
