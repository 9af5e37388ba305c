/* Messages of one plain ZeroMQ socket, many at a time, for an event loop in Python: a call from Python into libzmq costs about a
 * microsecond, most of it on Python's side, and an exception for "nothing there" five. It calls the functions of the very libzmq
 * that made the socket, handed in as pointers, so it links to none. Nothing here waits.
 *
 * A message is one frame; on a ROUTER ("routed") with the routing id before it. With "bundles" small frames travel together (bundle.h),
 * and whoever uses the batch sees the frames alone. A batch belongs to the thread that uses its socket. */
#ifndef DATACENTER_BATCH_H
#define DATACENTER_BATCH_H

#include "bundle.h"

#include <stddef.h>
#include <stdint.h>

/* zmq_msg_t of libzmq 4.x (zmq.h: 64 bytes, kept since 4.1) */
struct batch_message {
    _Alignas(8) unsigned char opaque[64];
};

/* The only list of what is needed from libzmq: result, name, parameters. */
#define BATCH_FUNCTIONS(X)                                                                                                         \
    X(int, zmq_msg_init, (struct batch_message *))                                                                                 \
    X(int, zmq_msg_recv, (struct batch_message *, void *, int))                                                                    \
    X(int, zmq_msg_more, (const struct batch_message *))                                                                           \
    X(int, zmq_msg_close, (struct batch_message *))                                                                                \
    X(void *, zmq_msg_data, (struct batch_message *))                                                                              \
    X(size_t, zmq_msg_size, (const struct batch_message *))                                                                        \
    X(int, zmq_send, (void *, const void *, size_t, int))                                                                          \
    X(int, zmq_errno, (void))

enum { BATCH_MOST = 200 };             /* messages a call: others have their turn in the loop */
enum { BATCH_BYTES = 64 * 1024 };      /* of one call; a larger message comes alone */
#define BATCH_MALFORMED UINT32_MAX     /* instead of a frame's end: a message of another number of frames, dropped */

/* Where a message is in `bytes`. Without routing id and frame begin at the same place. */
struct batch_span {
    uint32_t id, frame, end;
};

/* What batch_receive leaves, until the next call. */
struct batch {
    unsigned char *bytes; /* ids and frames, one after the other */
    uint32_t size;        /* how many of them are in use */
    int32_t all;          /* 1: there was nothing more; 0: come again */
    int32_t malformed;    /* how many of the messages were */
    struct batch_span spans[BATCH_MOST + BUNDLE_FRAMES - 1]; /* the last message may be a bundle */
};

/* The name of the number-th function wanted, as libzmq exports it; NULL after the last. */
const char *batch_function_name(unsigned number);
/* `functions`: pointers in the order of batch_function_name. NULL without memory. */
struct batch *batch_make(void *const *functions, void *socket, int routed, int bundles);
/* The socket stays open; a message that was read and not handed out yet is dropped. */
void batch_free(struct batch *batch);

/* How many messages were received, at most BATCH_MOST and what else the last one's bundle has; or minus the errno (ETERM, ENOTSOCK, ENOMEM) if there is none. */
int batch_receive(struct batch *batch);

/* Sends `count` messages, at most BATCH_MOST; those of a bundle have the same outcome. `ends`: of each its id's end (routed only) and its frame's end in `bytes`.
 * `outcomes`, of each: 0 sent, EAGAIN no room, EHOSTUNREACH the peer is gone, another errno else. Returns how many were not sent.
 * Without routing the first refusal ends it: all the others have the same outcome, so that their order is kept. */
int batch_send(struct batch *batch, const unsigned char *bytes, const uint32_t *ends, int count, int32_t *outcomes);

#endif
