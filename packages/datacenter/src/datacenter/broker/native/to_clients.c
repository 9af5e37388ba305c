/* See to_clients.h. */
#include "to_clients.h"

#include <stdbool.h>

void count(uint64_t *counter, uint64_t more) { __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED); }

/* Sends a message that has `frames` frames. */
static int send(struct to_clients *clients, uint64_t id, message *whole, uint64_t *counter, unsigned frames) {
    enum delivery what;
    int outcome = deliver(clients->messages, clients->front, id, whole, &what);
    if (what == NO_ROOM)
        counter = &clients->counts->replies_no_room;
    else if (what == NO_CLIENT)
        counter = &clients->counts->replies_no_client;
    if (what != NOT_SENT)
        count(counter, frames);
    return outcome;
}

/* The same of a message that is made from bytes. */
static int send_bytes(struct to_clients *clients, uint64_t id, const unsigned char *data, size_t size, uint64_t *counter,
                      unsigned frames) {
    message made;
    int outcome = copy(clients->messages, &made, data, size);
    if (outcome == MOVED_ONE)
        outcome = send(clients, id, &made, counter, frames);
    clients->messages->api.zmq_msg_close(&made);
    return outcome;
}

int tell_rest(struct to_clients *clients) {
    unsigned frames = clients->bundle.count;
    if (!frames)
        return MOVED_ONE;
    size_t size;
    const unsigned char *data = bundle_message(&clients->bundle, &size);
    clients->bundle.count = 0;
    return send_bytes(clients, clients->id, data, size, clients->counter, frames);
}

int tell(struct to_clients *clients, uint64_t id, const unsigned char *frame, size_t size, message *whole, uint64_t *counter) {
    bool fits = clients->bundle.count && !((clients->id ^ id) & LABEL_BITS) && clients->counter == counter;
    if (fits && bundle_add(&clients->bundle, frame, size))
        return MOVED_ONE;
    int outcome = tell_rest(clients);
    if (outcome != MOVED_ONE)
        return outcome;
    clients->id = id;
    clients->counter = counter;
    if (bundle_add(&clients->bundle, frame, size))
        return MOVED_ONE;
    return whole ? send(clients, id, whole, counter, 1) : send_bytes(clients, id, frame, size, counter, 1);
}
