/* A bundle: small frames that go to the same peer in the same turn of a loop, as one ZeroMQ message. libzmq costs two to three
 * microseconds a message in its I/O threads alone, on each side of each connection; a call of a hundred bytes costs less than that.
 *
 *     byte   0      1 .. 4                       5 ..
 *            0xc1   length, 32 bits, little      frame   length frame   …
 *
 * A frame of ours is a MessagePack array, and no MessagePack begins with 0xc1: every other message is one bare frame. A frame that is
 * alone travels bare. A bundle has 1 to BUNDLE_FRAMES frames, none of them empty or a bundle itself, and BUNDLE_BYTES at most in all;
 * every data connection lets such a message pass, whatever its limit for one call is (bundles.py). What is of another shape is a
 * malformed message. Pure: bytes in, bytes out. bundles.py is the same in Python.
 *
 * A program that writes the protocol by hand reads one frame a message. It is known by its call ids: those of a client that knows
 * bundles have the highest bit set (wire.FIRST_CALL_ID), and only replies to such calls travel together. */
#ifndef DATACENTER_BUNDLE_H
#define DATACENTER_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>

enum { BUNDLE_MARK = 0xc1, BUNDLE_FRAMES = 64, BUNDLE_FRAME_BYTES = 1024, BUNDLE_BYTES = 16 * 1024, BUNDLE_LENGTH = 4 };

/* One that is being filled. Zeroed at first, and to be emptied (count = 0) when it was sent. */
struct bundle {
    unsigned count; /* of frames */
    size_t size;
    unsigned char bytes[BUNDLE_BYTES];
};

/* Puts a frame last. False: there is no room beside the others, or it travels bare (it is empty, longer than BUNDLE_FRAME_BYTES, or
 * begins like a bundle). */
bool bundle_add(struct bundle *bundle, const unsigned char *frame, size_t size);
/* The message to send: the frame itself if there is only one. */
const unsigned char *bundle_message(const struct bundle *bundle, size_t *size);

/* Whether a frame is a reply to a call of a client that knows bundles. */
bool bundle_may(const unsigned char *frame, size_t size);
/* Whether a received message is a bundle, or should be one. */
static inline bool bundle_is(const unsigned char *message, size_t size) { return size && message[0] == BUNDLE_MARK; }
/* How many frames a received message has: 1 if it is bare, 0 if it is a malformed bundle. */
unsigned bundle_frames(const unsigned char *message, size_t size);
/* The next frame of a message that has some: begin with *at = 0. */
unsigned char *bundle_next(unsigned char *message, size_t size, size_t *at, size_t *frame_size);

#endif
