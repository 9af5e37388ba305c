/* The relay's data path: one loop between a front ROUTER (clients) and one DEALER an instance (back). It calls the functions of the
 * very libzmq that made the sockets, handed in as pointers, so it links to none.
 *
 * One bare frame a message, on both sides. A service's ROUTER sees the relay as one client, so the reply must say whose it is:
 * the call's own id does. A call and a reply begin with a MessagePack array whose second element is the id:
 *
 *     byte  0     1    2     3 .. 10
 *           0x9n  tag  0xcf  id, 64 bits: 1 (bit 63), label (bits 62..31), the caller's number (bits 30..0)
 *
 * A client sends label 0; the relay writes the client's number (the 32 bits of the routing id that the ROUTER made up) into it in
 * place, and clears it in the reply. Bit 63 keeps every encoder at nine bytes. So no state a call, no frame more, no copy.
 * What is not of this shape is dropped whole and counted.
 *
 * A loop belongs to one thread; relay_loop_counts may be called from any. */
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
    X(int, zmq_msg_more, (const struct relay_message *))                                                                           \
    X(int, zmq_msg_close, (struct relay_message *))                                                                                \
    X(void *, zmq_msg_data, (struct relay_message *))                                                                              \
    X(size_t, zmq_msg_size, (const struct relay_message *))                                                                        \
    X(int, zmq_poll, (struct relay_poll *, int, long))                                                                             \
    X(int, zmq_errno, (void))

struct relay_counts {
    uint64_t calls;            /* handed to an instance */
    uint64_t replies;          /* handed to a client */
    uint64_t malformed_calls;  /* dropped: not one frame, or not of the shape above */
    uint64_t malformed_replies;
    uint64_t replies_no_room;  /* dropped: the client does not read (its high-water mark is reached) */
    uint64_t replies_no_client; /* dropped: the client is gone */
};

enum relay_outcome {
    RELAY_WOKEN = 0,      /* the wake-up descriptor is readable: it is left so */
    RELAY_TIMEOUT = 1,    /* timeout_ms have passed */
    RELAY_DRAINED = 2,    /* a retired instance has answered everything: remove it */
    RELAY_TERMINATED = 3, /* the context was terminated: close the sockets */
    RELAY_FAILED = 4,     /* relay_loop_error tells the errno */
};

struct relay_loop;

/* The name of the number-th function wanted, as libzmq exports it; NULL after the last. */
const char *relay_function_name(unsigned number);

/* `functions`: pointers in the order of relay_function_name. `wake`: a descriptor that ends a run when it is readable.
 * NULL without memory. */
struct relay_loop *relay_loop_new(void *const *functions, void *front, int wake, unsigned max_instances);
/* Drops a call that was read and found no room. The sockets stay open. */
void relay_loop_free(struct relay_loop *loop);

/* A slot for one more instance's DEALER; -1 when all are taken. */
int relay_loop_add(struct relay_loop *loop, void *socket);
/* No more calls to it; its replies go on. Returns how many calls it has not answered. */
int64_t relay_loop_retire(struct relay_loop *loop, int slot);
/* Forgets it. Replies that have arrived already are delivered first. */
void relay_loop_remove(struct relay_loop *loop, int slot);
/* Calls handed to it and not answered. */
int64_t relay_loop_in_flight(const struct relay_loop *loop, int slot);

/* Moves messages until something is to be decided; timeout_ms < 0: without a limit. Never blocks elsewhere than in its poll. */
int relay_loop_run(struct relay_loop *loop, int timeout_ms);
/* Delivers replies that have arrived, at most 1000 of each instance, and returns. For the end. */
int relay_loop_flush(struct relay_loop *loop);
int relay_loop_error(const struct relay_loop *loop);
void relay_loop_counts(const struct relay_loop *loop, struct relay_counts *counts);

#endif
