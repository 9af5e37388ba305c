/* Calls that clients sent and that wait for an instance: a ring, first come, first served. Each has its own message here, also when it
 * came in a bundle (bundle.h). */
#ifndef DATACENTER_FROM_CLIENTS_H
#define DATACENTER_FROM_CLIENTS_H

#include "messages.h"

#include <stdbool.h>

struct waiting {
    message call; /* labelled */
    uint64_t id;
    int64_t deadline_ms;
};

struct from_clients {
    struct messages *messages;
    void *front;
    struct relay_counts *counts;
    struct waiting *ring;
    unsigned most;   /* with so many the front is not read */
    unsigned places; /* in the ring: `most`, and what else the last one's bundle has */
    unsigned first, count;
    int64_t earliest_deadline_ms; /* no waiting call's is before it */
};

/* `most` and what is before it in the struct are set. false without memory. */
bool waiting_begin(struct from_clients *clients);
/* Drops what waits. */
void waiting_end(struct from_clients *clients);

/* The number-th of those that wait; the one behind the last is a free place. */
struct waiting *waiting_at(struct from_clients *clients, unsigned number);
/* Takes the first one out; its message is the caller's. */
void waiting_pop(struct from_clients *clients);
/* Makes `calls` places before the first, which the caller fills. There must have been so many more before. */
void waiting_unpop(struct from_clients *clients, unsigned calls);
/* Notes the deadline of one that waits. */
void waiting_until(struct from_clients *clients, struct waiting *call, int64_t deadline_ms);

/* Reads one message from the front; its calls, `*frames` at most, are put last of those that wait. The results of `receive`. */
int take_message(struct from_clients *clients, int64_t now_ms, unsigned *frames);

#endif
