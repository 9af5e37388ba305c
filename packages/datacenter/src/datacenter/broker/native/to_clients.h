/* What a relay tells its clients: replies and answers of its own, through a ROUTER with MANDATORY. Those for one client that come one
 * after the other travel together (bundle.h), at the latest with tell_rest. */
#ifndef DATACENTER_TO_CLIENTS_H
#define DATACENTER_TO_CLIENTS_H

#include "bundle.h"
#include "messages.h"

struct to_clients {
    struct messages *messages;
    void *front;
    struct relay_counts *counts;
    struct bundle bundle; /* of frames for one client, which are counted alike: */
    uint64_t id;          /* of a call of that client */
    uint64_t *counter;
};

/* Adds to a counter of relay_counts. One thread writes, any may read. */
void count(uint64_t *counter, uint64_t more);

/* A frame for the client whom the label of `id` stands for. `whole`: the message that it is, NULL if it is a part of one; the caller
 * closes it. `counter` counts it when it was sent, else one for the reason does. Returns MOVED_ONE, whatever became of it, or a
 * failure. */
int tell(struct to_clients *clients, uint64_t id, const unsigned char *frame, size_t size, message *whole, uint64_t *counter);
/* Sends what is still there. The same results. */
int tell_rest(struct to_clients *clients);

#endif
