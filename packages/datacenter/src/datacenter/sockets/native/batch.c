/* See batch.h. */
#include "batch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ZMQ_DONTWAIT 1
#define ZMQ_SNDMORE 2

typedef struct batch_message message;

struct batch_api {
#define MEMBER(result, name, parameters) result(*name) parameters;
    BATCH_FUNCTIONS(MEMBER)
#undef MEMBER
};

enum { LONGEST_ID = 256 };
#define LARGEST ((size_t)1 << 31) /* spans have 32 bits; max_message_bytes is far below */

/* `shared` is first: what Python sees. A message that found no room in `bytes` is `held` for the next call, with its id. */
struct whole {
    struct batch shared;
    struct batch_api api;
    void *socket;
    size_t room;
    bool routed, bundles, held;
    size_t id_size;
    unsigned char id[LONGEST_ID];
    message frame; /* or several: a bundle of `frames` */
    unsigned frames;
    struct bundle outgoing;
};

/* Reads a part whose predecessor was read: it is there. Retried over signals. 0, or minus the errno. */
static int receive(struct whole *batch, message *part) {
    batch->api.zmq_msg_init(part);
    while (batch->api.zmq_msg_recv(part, batch->socket, ZMQ_DONTWAIT) < 0) {
        int error = batch->api.zmq_errno();
        if (error == EINTR)
            continue;
        batch->api.zmq_msg_close(part);
        return -error;
    }
    return 0;
}

/* Reads and drops the rest of a message whose part `more` is. */
static int drop_rest(struct whole *batch, message *more) {
    while (batch->api.zmq_msg_more(more)) {
        batch->api.zmq_msg_close(more);
        int error = receive(batch, more);
        if (error)
            return error;
    }
    batch->api.zmq_msg_close(more);
    return 0;
}

/* Reads the next message into `id` and `frame`: 1, 0 if it was malformed (dropped; the id is known), or minus the errno. */
static int next_message(struct whole *batch) {
    message *frame = &batch->frame;
    batch->id_size = 0;
    int error = receive(batch, frame);
    if (error)
        return error;
    if (batch->routed) {
        batch->id_size = batch->api.zmq_msg_size(frame);
        if (batch->id_size > LONGEST_ID)
            batch->id_size = LONGEST_ID; /* libzmq makes none that long */
        memcpy(batch->id, batch->api.zmq_msg_data(frame), batch->id_size);
        bool more = batch->api.zmq_msg_more(frame);
        batch->api.zmq_msg_close(frame);
        if (!more)
            return 0;
        error = receive(batch, frame);
        if (error)
            return error;
    }
    size_t size = batch->api.zmq_msg_size(frame);
    batch->frames = batch->bundles ? bundle_frames(batch->api.zmq_msg_data(frame), size) : 1;
    if (!batch->api.zmq_msg_more(frame) && size < LARGEST && batch->frames)
        return 1;
    return drop_rest(batch, frame);
}

static bool make_room(struct whole *batch, size_t room) {
    if (room == batch->room)
        return true;
    unsigned char *bytes = realloc(batch->shared.bytes, room);
    if (!bytes)
        return false;
    batch->shared.bytes = bytes;
    batch->room = room;
    return true;
}

static void append(struct whole *batch, const void *from, size_t size) {
    if (size)
        memcpy(batch->shared.bytes + batch->shared.size, from, size);
    batch->shared.size += (uint32_t)size;
}

/* What the message in `id` and `frame` takes in `bytes`: each frame of a bundle has its id. */
static size_t wanted(struct whole *batch) { return batch->frames * batch->id_size + batch->api.zmq_msg_size(&batch->frame); }

/* Hands the message in `id` and `frame` out as the `number`-th and those that follow; returns how many. 0 if it has no room beside the
 * others. */
static int hand_out(struct whole *batch, int number) {
    if (batch->shared.size + wanted(batch) > batch->room)
        return 0;
    unsigned char *data = batch->api.zmq_msg_data(&batch->frame);
    size_t size = batch->api.zmq_msg_size(&batch->frame), at = 0;
    for (unsigned n = 0; n < batch->frames; n++) {
        struct batch_span *span = &batch->shared.spans[number + (int)n];
        const unsigned char *frame = data;
        size_t frame_size = size;
        if (batch->bundles)
            frame = bundle_next(data, size, &at, &frame_size);
        span->id = batch->shared.size;
        append(batch, batch->id, batch->id_size);
        span->frame = batch->shared.size;
        append(batch, frame, frame_size);
        span->end = batch->shared.size;
    }
    batch->api.zmq_msg_close(&batch->frame);
    return (int)batch->frames;
}

/* Hands the held message out as the first, whatever its size; returns how many. 0 without memory: it stays held. */
static int hand_out_alone(struct whole *batch) {
    if (!make_room(batch, wanted(batch) > BATCH_BYTES ? wanted(batch) : BATCH_BYTES))
        return 0;
    batch->held = false;
    return hand_out(batch, 0);
}

static void hand_out_malformed(struct whole *batch, int number) {
    struct batch_span *span = &batch->shared.spans[number];
    span->id = batch->shared.size;
    if (batch->shared.size + batch->id_size <= batch->room)
        append(batch, batch->id, batch->id_size);
    span->frame = batch->shared.size;
    span->end = BATCH_MALFORMED;
    batch->shared.malformed++;
}

int batch_receive(struct batch *shared) {
    struct whole *batch = (struct whole *)shared;
    int count = 0, more = 0;
    shared->size = 0;
    shared->all = shared->malformed = 0;
    if (batch->held) {
        count = hand_out_alone(batch);
        if (!count)
            return -ENOMEM;
    } else if (!make_room(batch, BATCH_BYTES)) {
        return -ENOMEM;
    }
    while (count < BATCH_MOST) {
        int got = next_message(batch);
        if (got < 0) {
            if (got == -EAGAIN)
                shared->all = 1;
            else if (!count)
                return got;
            break; /* an error comes again at the next call */
        }
        if (got == 0) {
            hand_out_malformed(batch, count++);
        } else if ((more = hand_out(batch, count))) {
            count += more;
        } else {
            batch->held = true;
            if (count)
                break;
            count = hand_out_alone(batch);
            if (!count)
                return -ENOMEM;
        }
    }
    return count;
}

static int send_part(struct whole *batch, const unsigned char *from, size_t size, int flags) {
    while (batch->api.zmq_send(batch->socket, from, size, flags | ZMQ_DONTWAIT) < 0) {
        int error = batch->api.zmq_errno();
        if (error != EINTR)
            return error;
    }
    return 0;
}

struct outgoing {
    const unsigned char *id, *frame;
    size_t id_size, frame_size;
};

/* How many of the `count` messages from `first` on travel as one; they are in batch->outgoing then, if they are more than one. */
static int gather(struct whole *batch, const struct outgoing *first, int count) {
    int together = 0;
    batch->outgoing.count = 0;
    if (batch->bundles)
        while (together < count && first[together].id_size == first->id_size &&
               memcmp(first[together].id, first->id, first->id_size) == 0 &&
               (!batch->routed || bundle_may(first[together].frame, first[together].frame_size)) &&
               bundle_add(&batch->outgoing, first[together].frame, first[together].frame_size))
            together++;
    return together ? together : 1;
}

static int send_message(struct whole *batch, const struct outgoing *first, int together) {
    const unsigned char *data = first->frame;
    size_t size = first->frame_size;
    if (together > 1)
        data = bundle_message(&batch->outgoing, &size);
    int outcome = batch->routed ? send_part(batch, first->id, first->id_size, ZMQ_SNDMORE) : 0;
    return outcome ? outcome : send_part(batch, data, size, 0);
}

int batch_send(struct batch *shared, const unsigned char *bytes, const uint32_t *ends, int count, int32_t *outcomes) {
    struct whole *batch = (struct whole *)shared;
    struct outgoing messages[BATCH_MOST];
    int not_sent = 0, outcome = 0;
    uint32_t at = 0;
    for (int number = 0; number < count; number++) {
        uint32_t id_end = batch->routed ? *ends++ : at, frame_end = *ends++;
        messages[number] = (struct outgoing){bytes + at, bytes + id_end, id_end - at, frame_end - id_end};
        at = frame_end;
    }
    for (int number = 0, together; number < count; number += together) {
        together = gather(batch, messages + number, count - number);
        if (batch->routed || !outcome)
            outcome = send_message(batch, messages + number, together);
        for (int n = 0; n < together; n++)
            outcomes[number + n] = outcome;
        not_sent += outcome ? together : 0;
    }
    return not_sent;
}

const char *batch_function_name(unsigned number) {
#define NAME(result, name, parameters) #name,
    static const char *const names[] = {BATCH_FUNCTIONS(NAME)};
#undef NAME
    return number < sizeof names / sizeof *names ? names[number] : NULL;
}

struct batch *batch_make(void *const *functions, void *socket, int routed, int bundles) {
    struct whole *batch = calloc(1, sizeof *batch);
    if (!batch || !make_room(batch, BATCH_BYTES)) {
        free(batch);
        return NULL;
    }
    memcpy(&batch->api, functions, sizeof batch->api);
    batch->socket = socket;
    batch->routed = routed;
    batch->bundles = bundles;
    return &batch->shared;
}

void batch_free(struct batch *shared) {
    struct whole *batch = (struct whole *)shared;
    if (batch->held)
        batch->api.zmq_msg_close(&batch->frame);
    free(batch->shared.bytes);
    free(batch);
}
