/* See from_clients.h. */
#include "from_clients.h"

#include "bundle.h"
#include "to_clients.h"

#include <stdlib.h>

#define MOST_TIMEOUT_MS (INT64_C(1) << 40) /* 34 years: no sum of it overflows */

/* --- the ring */

bool waiting_begin(struct from_clients *clients) {
    clients->places = clients->most + BUNDLE_FRAMES - 1;
    clients->earliest_deadline_ms = INT64_MAX;
    clients->ring = calloc(clients->places, sizeof *clients->ring);
    return clients->ring;
}

void waiting_end(struct from_clients *clients) {
    for (; clients->count; waiting_pop(clients))
        clients->messages->api.zmq_msg_close(&waiting_at(clients, 0)->call);
    free(clients->ring);
}

struct waiting *waiting_at(struct from_clients *clients, unsigned number) {
    return &clients->ring[(clients->first + number) % clients->places];
}

void waiting_pop(struct from_clients *clients) {
    clients->first = (clients->first + 1) % clients->places;
    if (--clients->count == 0) {
        clients->first = 0; /* the ring's beginning is in the cache */
        clients->earliest_deadline_ms = INT64_MAX;
    }
}

void waiting_unpop(struct from_clients *clients, unsigned calls) {
    clients->first = (clients->first + clients->places - calls) % clients->places;
    clients->count += calls;
}

void waiting_until(struct from_clients *clients, struct waiting *call, int64_t deadline_ms) {
    call->deadline_ms = deadline_ms;
    if (deadline_ms < clients->earliest_deadline_ms)
        clients->earliest_deadline_ms = deadline_ms;
}

/* --- from the front */

/* Whether a frame is a call: labels it, and notes what is to be known of it. */
static bool read_call(struct from_clients *clients, message *client, int64_t now_ms, struct waiting *call) {
    const struct relay_api *api = &clients->messages->api;
    unsigned char *data = api->zmq_msg_data(&call->call);
    uint64_t timeout_ms, id = call_id(data, api->zmq_msg_size(&call->call), &timeout_ms);
    call->id = id ? labelled(id, api->zmq_msg_data(client), api->zmq_msg_size(client)) : 0;
    if (!call->id)
        return false;
    write_id(data, call->id);
    waiting_until(clients, call, now_ms + (timeout_ms < MOST_TIMEOUT_MS ? (int64_t)timeout_ms : MOST_TIMEOUT_MS));
    return true;
}

/* The frame in the place behind the last that waits: now it is the last, if it is a call. */
static void put_last(struct from_clients *clients, message *client, int64_t now_ms) {
    struct waiting *last = waiting_at(clients, clients->count);
    if (read_call(clients, client, now_ms, last)) {
        clients->count++;
    } else {
        clients->messages->api.zmq_msg_close(&last->call);
        count(&clients->counts->malformed_calls, 1);
    }
}

/* The frames of a bundle wait each on its own. */
static int unpack_calls(struct from_clients *clients, message *client, int64_t now_ms, message *bundle, unsigned frames) {
    unsigned char *data = clients->messages->api.zmq_msg_data(bundle);
    size_t size = clients->messages->api.zmq_msg_size(bundle), at = 0, frame_size;
    int outcome = MOVED_ONE;
    while (frames-- && outcome == MOVED_ONE) {
        const unsigned char *frame = bundle_next(data, size, &at, &frame_size);
        outcome = copy(clients->messages, &waiting_at(clients, clients->count)->call, frame, frame_size);
        if (outcome == MOVED_ONE)
            put_last(clients, client, now_ms);
    }
    return outcome;
}

/* Reads the body of a message from the front: a frame or a bundle. */
static int take_body(struct from_clients *clients, message *client, int64_t now_ms, unsigned *frames, bool *more) {
    const struct relay_api *api = &clients->messages->api;
    message body;
    int outcome = receive(clients->messages, &body, clients->front);
    if (outcome != MOVED_ONE)
        return outcome;
    const unsigned char *data = api->zmq_msg_data(&body);
    size_t size = api->zmq_msg_size(&body);
    *more = api->zmq_msg_more(&body);
    *frames = *more ? 0 : bundle_frames(data, size);
    if (*frames && bundle_is(data, size)) {
        outcome = unpack_calls(clients, client, now_ms, &body, *frames);
    } else if (*frames) {
        message *place = &waiting_at(clients, clients->count)->call;
        api->zmq_msg_init(place);
        api->zmq_msg_move(place, &body);
        put_last(clients, client, now_ms);
    }
    api->zmq_msg_close(&body);
    return outcome;
}

int take_message(struct from_clients *clients, int64_t now_ms, unsigned *frames) {
    message client;
    *frames = 0;
    int outcome = receive(clients->messages, &client, clients->front);
    if (outcome != MOVED_ONE)
        return outcome;
    bool more = clients->messages->api.zmq_msg_more(&client);
    if (more)
        outcome = take_body(clients, &client, now_ms, frames, &more);
    clients->messages->api.zmq_msg_close(&client);
    if (outcome != MOVED_ONE || *frames)
        return outcome;
    count(&clients->counts->malformed_calls, 1);
    return drop_rest(clients->messages, clients->front, more);
}
