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
    bool routed, held;
    size_t id_size;
    unsigned char id[LONGEST_ID];
    message frame;
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
    if (!batch->api.zmq_msg_more(frame) && batch->api.zmq_msg_size(frame) < LARGEST)
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

/* Hands the message in `id` and `frame` out as the `number`-th. False if it has no room beside the others. */
static bool hand_out(struct whole *batch, int number) {
    size_t size = batch->api.zmq_msg_size(&batch->frame);
    if (batch->shared.size + batch->id_size + size > batch->room)
        return false;
    struct batch_span *span = &batch->shared.spans[number];
    span->id = batch->shared.size;
    append(batch, batch->id, batch->id_size);
    span->frame = batch->shared.size;
    append(batch, batch->api.zmq_msg_data(&batch->frame), size);
    span->end = batch->shared.size;
    batch->api.zmq_msg_close(&batch->frame);
    return true;
}

/* Hands the held message out as the first, whatever its size. False without memory: it stays held. */
static bool hand_out_alone(struct whole *batch) {
    size_t wanted = batch->id_size + batch->api.zmq_msg_size(&batch->frame);
    if (!make_room(batch, wanted > BATCH_BYTES ? wanted : BATCH_BYTES))
        return false;
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
    int count = 0;
    shared->size = 0;
    shared->all = shared->malformed = 0;
    if (batch->held) {
        if (!hand_out_alone(batch))
            return -ENOMEM;
        count++;
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
        } else if (hand_out(batch, count)) {
            count++;
        } else {
            batch->held = true;
            if (count)
                break;
            if (!hand_out_alone(batch))
                return -ENOMEM;
            count++;
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

int batch_send(struct batch *shared, const unsigned char *bytes, const uint32_t *ends, int count, int32_t *outcomes) {
    struct whole *batch = (struct whole *)shared;
    int not_sent = 0, outcome = 0;
    uint32_t at = 0;
    for (int number = 0; number < count; number++) {
        uint32_t id_end = batch->routed ? *ends++ : at, frame_end = *ends++;
        if (batch->routed || !outcome) {
            outcome = batch->routed ? send_part(batch, bytes + at, id_end - at, ZMQ_SNDMORE) : 0;
            if (!outcome)
                outcome = send_part(batch, bytes + id_end, frame_end - id_end, 0);
        }
        outcomes[number] = outcome;
        not_sent += outcome != 0;
        at = frame_end;
    }
    return not_sent;
}

const char *batch_function_name(unsigned number) {
#define NAME(result, name, parameters) #name,
    static const char *const names[] = {BATCH_FUNCTIONS(NAME)};
#undef NAME
    return number < sizeof names / sizeof *names ? names[number] : NULL;
}

struct batch *batch_new(void *const *functions, void *socket, int routed) {
    struct whole *batch = calloc(1, sizeof *batch);
    if (!batch || !make_room(batch, BATCH_BYTES)) {
        free(batch);
        return NULL;
    }
    memcpy(&batch->api, functions, sizeof batch->api);
    batch->socket = socket;
    batch->routed = routed;
    return &batch->shared;
}

void batch_free(struct batch *shared) {
    struct whole *batch = (struct whole *)shared;
    if (batch->held)
        batch->api.zmq_msg_close(&batch->frame);
    free(batch->shared.bytes);
    free(batch);
}
