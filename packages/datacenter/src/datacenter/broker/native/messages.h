/* Messages of a relay over libzmq's functions: received and sent whole or not at all, and never waited for. */
#ifndef DATACENTER_MESSAGES_H
#define DATACENTER_MESSAGES_H

#include "call_frame.h"
#include "relay_loop.h"

typedef struct relay_message message;

struct relay_api {
#define MEMBER(result, name, parameters) result(*name) parameters;
    RELAY_FUNCTIONS(MEMBER)
#undef MEMBER
};

/* How a step went; what is >= 0 is an outcome of relay_loop_run. MOVED_ALL: nothing (more) can be moved now. */
enum { MOVED_ALL = -1, MOVED_ONE = -2 };

/* What became of a message to a client. */
enum delivery { DELIVERED, NO_ROOM, NO_CLIENT, NOT_SENT };

struct messages {
    struct relay_api api;
    int error; /* the errno behind the last outcome that was a failure */
};

/* What the errno of the call that just failed means: MOVED_ALL, RELAY_TERMINATED or RELAY_FAILED. */
int failed(struct messages *messages);
/* The first or a later part of a message. Where it fails, nothing is left to close: MOVED_ALL when there is none. */
int receive(struct messages *messages, message *part, void *socket);
/* A message with these bytes. Where it fails, nothing is left to close, and it may be closed all the same. */
int copy(struct messages *messages, message *to, const void *data, size_t size);
/* Receives and forgets what is left of a message. */
int drop_rest(struct messages *messages, void *socket, bool more);
/* Sends a frame to the client whom the label of `id` stands for, through a ROUTER with MANDATORY. The frame is the caller's to close.
 * Returns MOVED_ONE, whatever became of it, or a failure. */
int deliver(struct messages *messages, void *front, uint64_t id, message *frame, enum delivery *what);

#endif
