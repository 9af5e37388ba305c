/* The relay's data path: one loop between a front ROUTER (clients) and one DEALER an instance (back). It calls the functions of the
 * very libzmq that made the sockets, handed in as pointers, so it links to none.
 *
 * One bare frame a message, on both sides, or a bundle of small ones (bundle.h): calls that are handed to one instance in one turn, and
 * replies to one client that come one after the other, travel together. A service's ROUTER sees the relay as one client, so the reply must say whose it is: the
 * call's own id does, with the client's label in it (call_frame.h). What is not of that shape is dropped whole and counted.
 *
 * A call ends exactly once. From the moment it is read it is in one of two places, both bounded:
 * - waiting: no instance has room. First come, first served. Its deadline passes: it is answered "deadline", and was never sent. When
 *   `max_waiting` wait (or a few more: what else the last one's bundle had), the front is not read, and TCP slows the clients.
 * - in flight: an instance was handed it. Its reply ends it; or its instance is removed: it is answered "lost"; or its deadline has
 *   passed for `late_reply_ms`: it is forgotten, for its client has ended it. With `max_in_flight` of them, calls wait.
 * A reply that ends no call in flight at that very instance is dropped: no instance can speak to clients that did not ask it.
 *
 * A loop belongs to one thread; relay_loop_counts and relay_loop_in_flight may be called from any. */
#ifndef DATACENTER_RELAY_LOOP_H
#define DATACENTER_RELAY_LOOP_H

#include <stddef.h>
#include <stdint.h>

/* zmq_msg_t and zmq_pollitem_t of libzmq 4.x (zmq.h: 64 bytes, kept since 4.1) */
struct relay_message {
    _Alignas(8) unsigned char opaque[64];
};
struct relay_poll {
    void *socket;
    int fd;
    short events, revents;
};

/* The only list of what is needed from libzmq: result, name, parameters. */
#define RELAY_FUNCTIONS(X)                                                                                                         \
    X(int, zmq_msg_init, (struct relay_message *))                                                                                 \
    X(int, zmq_msg_init_size, (struct relay_message *, size_t))                                                                    \
    X(int, zmq_msg_recv, (struct relay_message *, void *, int))                                                                    \
    X(int, zmq_msg_send, (struct relay_message *, void *, int))                                                                    \
    X(int, zmq_msg_move, (struct relay_message *, struct relay_message *))                                                         \
    X(int, zmq_msg_more, (const struct relay_message *))                                                                           \
    X(int, zmq_msg_close, (struct relay_message *))                                                                                \
    X(void *, zmq_msg_data, (struct relay_message *))                                                                              \
    X(size_t, zmq_msg_size, (const struct relay_message *))                                                                        \
    X(int, zmq_send, (void *, const void *, size_t, int))                                                                          \
    X(int, zmq_poll, (struct relay_poll *, int, long))                                                                             \
    X(int, zmq_errno, (void))

struct relay_counts {
    uint64_t calls;             /* handed to an instance */
    uint64_t replies;           /* of an instance, handed to a client */
    uint64_t lost;              /* answered so: the instance went away before it answered */
    uint64_t expired;           /* answered "deadline": no instance had room in time */
    uint64_t unanswered;        /* forgotten: the instance did not answer, and the client waits no more */
    uint64_t unknown_replies;   /* dropped: the instance has no such call in flight */
    uint64_t malformed_calls;   /* dropped: not one frame or a bundle, or not of that shape */
    uint64_t duplicate_calls;   /* dropped: the same client's call of that number is in flight */
    uint64_t malformed_replies; /* dropped */
    uint64_t replies_no_room;   /* dropped: the client does not read (its high-water mark is reached) */
    uint64_t replies_no_client; /* dropped: the client is gone */
};

struct relay_limits {
    uint32_t max_instances, max_waiting, max_in_flight, late_reply_ms;
};

enum relay_outcome {
    RELAY_WOKEN = 0,      /* the wake-up descriptor is readable: it is left so */
    RELAY_TIMEOUT = 1,    /* timeout_ms have passed */
    RELAY_DRAINED = 2,    /* a retired instance has nothing in flight any more: remove it */
    RELAY_TERMINATED = 3, /* the context was terminated: close the sockets */
    RELAY_FAILED = 4,     /* relay_loop_error tells the errno */
};

struct relay_loop;

/* The name of the number-th function wanted, as libzmq exports it; NULL after the last. */
const char *relay_function_name(unsigned number);

/* `functions`: pointers in the order of relay_function_name. `wake`: a descriptor that ends a run when it is readable. `expired`: the
 * answer to a call whose deadline passes here, a wire.Failure without the eleven bytes up to its id; copied. NULL without memory. */
struct relay_loop *relay_loop_make(void *const *functions, void *front, int wake, const struct relay_limits *limits,
                                  const void *expired, size_t expired_size);
/* Drops the calls that wait. The sockets stay open. */
void relay_loop_free(struct relay_loop *loop);

/* A slot for one more instance's DEALER; -1 when all are taken, -2 without memory. `lost`: the answer, of
 * the same kind, to calls that are in flight when it is removed. */
int relay_loop_add(struct relay_loop *loop, void *socket, const void *lost, size_t lost_size);
/* Its connection stands: calls go to it from now on. */
void relay_loop_ready(struct relay_loop *loop, int slot);
/* No more calls to it; its replies go on. Returns how many calls it has not answered. */
int64_t relay_loop_retire(struct relay_loop *loop, int slot);
/* Forgets it. Replies that have arrived already are delivered first; its other calls are lost. Returns how many. */
int64_t relay_loop_remove(struct relay_loop *loop, int slot);
/* Calls in flight there. */
int64_t relay_loop_in_flight(const struct relay_loop *loop, int slot);

/* Moves messages until something is to be decided; timeout_ms < 0: without a limit. Never blocks elsewhere than in its poll. */
int relay_loop_run(struct relay_loop *loop, int timeout_ms);
/* Delivers replies that have arrived, at most 1000 of each instance, and returns. For the end. */
int relay_loop_flush(struct relay_loop *loop);
int relay_loop_error(const struct relay_loop *loop);
void relay_loop_counts(const struct relay_loop *loop, struct relay_counts *counts);

#endif
