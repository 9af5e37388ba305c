/* See relay_loop.h.
 *
 * Why nothing can block or be cut, whoever does not read (libzmq 4.3.5):
 * - Every send and every first receive is DONTWAIT. The parts of a message arrive together, so later receives find them.
 * - A call that no instance has room for is held, whole, and the front is not read until one has: TCP then slows the clients.
 * - The front is a ROUTER with MANDATORY, so a reply to a full or vanished client fails at once, at its first part
 *   (router.cpp:xsend), and is counted, instead of being dropped in silence; the high-water mark is checked at that part only, so
 *   the second one goes with it. One client that does not read never holds up the others.
 * - No return value of the poll is trusted beyond "look there": each source is read until it has nothing.
 * - The wake-up descriptor is in every poll, and each source is read in bursts, so a stop is seen within two bursts. */
#define _POSIX_C_SOURCE 200809L
#include "relay_loop.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ZMQ_DONTWAIT 1
#define ZMQ_SNDMORE 2
#define ZMQ_POLLIN 1
#define ZMQ_POLLOUT 2
#define ZMQ_POLLERR 4
#define ZMQ_HAUSNUMERO 156384712
#define ZMQ_ETERM (ZMQ_HAUSNUMERO + 53)

enum { BURST = 256, LEAST_FRAME = 11, ROUTING_ID = 5 };

typedef struct relay_message message;

struct relay_api {
#define MEMBER(result, name, parameters) result(*name) parameters;
    RELAY_FUNCTIONS(MEMBER)
#undef MEMBER
};

struct instance {
    void *socket; /* NULL: a free slot */
    int64_t in_flight;
    bool retired;
    bool full; /* refused a call, or not connected yet: not tried again until poll says POLLOUT */
};

struct relay_loop {
    struct relay_api api;
    void *front;
    int wake;
    int error;
    bool held; /* `call` is a call that found no room */
    bool drained;
    message call;
    struct relay_counts counts;
    struct relay_poll *polls;
    unsigned max_instances, used, next; /* used: slots beyond are free */
    struct instance instances[];
};

/* How a step went; what is >= 0 is an outcome of relay_loop_run. MOVED_ALL: nothing (more) can be moved now. */
enum { MOVED_ALL = -1, MOVED_ONE = -2 };

/* One thread writes, any may read. */
static void count(uint64_t *counter) { __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED); }

static void add_in_flight(struct instance *instance, int64_t more) {
    __atomic_store_n(&instance->in_flight, instance->in_flight + more, __ATOMIC_RELAXED);
}

/* What the errno of the call that just failed means. */
static int failed(struct relay_loop *loop) {
    int error = loop->api.zmq_errno();
    if (error == EAGAIN || error == EINTR)
        return MOVED_ALL;
    loop->error = error;
    return error == ZMQ_ETERM ? RELAY_TERMINATED : RELAY_FAILED;
}

/* --- the label in the id */

static uint64_t read_id(const unsigned char *at) {
    uint64_t id = 0;
    for (int n = 0; n < 8; n++)
        id = id << 8 | at[n];
    return id;
}

static void write_id(unsigned char *at, uint64_t id) {
    for (int n = 7; n >= 0; n--, id >>= 8)
        at[n] = (unsigned char)id;
}

/* Where the id of a frame is; NULL if the frame is no message with a relayable id. */
static unsigned char *id_of(struct relay_loop *loop, message *frame) {
    unsigned char *data = loop->api.zmq_msg_data(frame);
    if (loop->api.zmq_msg_size(frame) < LEAST_FRAME || (data[0] & 0xf0) != 0x90 || data[1] > 0x7f || data[2] != 0xcf ||
        !(data[3] & 0x80))
        return NULL;
    return data + 3;
}

#define NUMBER_BITS 31
static const uint64_t LABEL = (uint64_t)0xffffffff << NUMBER_BITS;

static bool label_call(struct relay_loop *loop, const unsigned char *client, message *frame) {
    unsigned char *at = id_of(loop, frame);
    if (!at || read_id(at) & LABEL)
        return false;
    uint32_t label = (uint32_t)client[1] << 24 | (uint32_t)client[2] << 16 | (uint32_t)client[3] << 8 | client[4];
    write_id(at, read_id(at) | (uint64_t)label << NUMBER_BITS);
    return true;
}

static bool unlabel_reply(struct relay_loop *loop, message *frame, unsigned char *client) {
    unsigned char *at = id_of(loop, frame);
    if (!at)
        return false;
    uint64_t id = read_id(at);
    uint32_t label = (uint32_t)(id >> NUMBER_BITS);
    client[0] = 0;
    for (int n = 4; n > 0; n--, label >>= 8)
        client[n] = (unsigned char)label;
    write_id(at, id & ~LABEL);
    return true;
}

/* --- calls: front to back */

/* The first or a later part of a message. Where it fails, nothing is left to close: MOVED_ALL when there is none. */
static int receive(struct relay_loop *loop, message *part, void *socket) {
    int received;
    loop->api.zmq_msg_init(part);
    do /* a signal must not cut a message in two */
        received = loop->api.zmq_msg_recv(part, socket, ZMQ_DONTWAIT);
    while (received < 0 && loop->api.zmq_errno() == EINTR);
    if (received >= 0)
        return MOVED_ONE;
    int outcome = failed(loop);
    loop->api.zmq_msg_close(part);
    return outcome;
}

/* Receives and forgets what is left of a message. */
static int drop_rest(struct relay_loop *loop, void *socket, bool more) {
    while (more) {
        message part;
        int outcome = receive(loop, &part, socket);
        if (outcome != MOVED_ONE)
            return outcome;
        more = loop->api.zmq_msg_more(&part);
        loop->api.zmq_msg_close(&part);
    }
    return MOVED_ONE;
}

/* Reads one message from the front; `held` says whether it was a call, which is in loop->call then, labelled. */
static int take_call(struct relay_loop *loop) {
    message client;
    unsigned char id[ROUTING_ID] = {1};
    int outcome = receive(loop, &client, loop->front);
    if (outcome != MOVED_ONE)
        return outcome;
    if (loop->api.zmq_msg_size(&client) == ROUTING_ID) /* else the peer chose its own: no label fits */
        memcpy(id, loop->api.zmq_msg_data(&client), ROUTING_ID);
    bool more = loop->api.zmq_msg_more(&client);
    loop->api.zmq_msg_close(&client);
    if (more) {
        outcome = receive(loop, &loop->call, loop->front);
        if (outcome != MOVED_ONE)
            return outcome;
        more = loop->api.zmq_msg_more(&loop->call);
        loop->held = !more && id[0] == 0 && label_call(loop, id, &loop->call);
        if (loop->held)
            return MOVED_ONE;
        loop->api.zmq_msg_close(&loop->call);
    }
    count(&loop->counts.malformed_calls);
    return drop_rest(loop, loop->front, more);
}

static bool has_room(const struct instance *instance) {
    return instance->socket && !instance->retired && !instance->full;
}

static bool any_room(const struct relay_loop *loop) {
    for (unsigned n = 0; n < loop->used; n++)
        if (has_room(&loop->instances[n]))
            return true;
    return false;
}

/* The instance with the fewest unanswered calls; equals take turns. */
static struct instance *choose(struct relay_loop *loop) {
    struct instance *best = NULL;
    for (unsigned n = 0; n < loop->used; n++) {
        unsigned slot = loop->next + n < loop->used ? loop->next + n : loop->next + n - loop->used;
        struct instance *found = &loop->instances[slot];
        if (has_room(found) && (!best || found->in_flight < best->in_flight))
            best = found;
    }
    if (best)
        loop->next = (unsigned)(best - loop->instances + 1) % loop->used;
    return best;
}

static int move_calls(struct relay_loop *loop) {
    for (int n = 0; n < BURST; n++) {
        if (!loop->held) {
            if (!any_room(loop))
                return MOVED_ALL;
            int outcome = take_call(loop);
            if (outcome != MOVED_ONE)
                return outcome;
            if (!loop->held)
                continue;
        }
        struct instance *to;
        while ((to = choose(loop)) && loop->api.zmq_msg_send(&loop->call, to->socket, ZMQ_DONTWAIT) < 0) {
            int outcome = failed(loop);
            if (outcome != MOVED_ALL)
                return outcome;
            to->full = true;
        }
        if (!to)
            return MOVED_ALL; /* held until poll tells of room */
        loop->held = false;
        add_in_flight(to, 1);
        count(&loop->counts.calls);
    }
    return MOVED_ONE;
}

/* --- replies: back to front */

static int deliver(struct relay_loop *loop, const unsigned char *client, message *frame) {
    message id;
    if (loop->api.zmq_msg_init_size(&id, ROUTING_ID) < 0)
        return failed(loop);
    memcpy(loop->api.zmq_msg_data(&id), client, ROUTING_ID);
    while (loop->api.zmq_msg_send(&id, loop->front, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        int error = loop->api.zmq_errno();
        if (error == EINTR)
            continue;
        int outcome = failed(loop);
        loop->api.zmq_msg_close(&id);
        if (error != EAGAIN && error != EHOSTUNREACH)
            return outcome;
        count(error == EAGAIN ? &loop->counts.replies_no_room : &loop->counts.replies_no_client);
        return MOVED_ONE;
    }
    while (loop->api.zmq_msg_send(frame, loop->front, ZMQ_DONTWAIT) < 0)
        if (loop->api.zmq_errno() != EINTR)
            return failed(loop);
    count(&loop->counts.replies);
    return MOVED_ONE;
}

static int move_reply(struct relay_loop *loop, struct instance *from) {
    message frame;
    unsigned char client[ROUTING_ID];
    int outcome = receive(loop, &frame, from->socket);
    if (outcome != MOVED_ONE)
        return outcome;
    bool more = loop->api.zmq_msg_more(&frame);
    if (more || !unlabel_reply(loop, &frame, client)) {
        count(&loop->counts.malformed_replies);
        outcome = drop_rest(loop, from->socket, more);
    } else {
        if (from->in_flight > 0) {
            add_in_flight(from, -1);
            loop->drained |= from->in_flight == 0 && from->retired;
        }
        outcome = deliver(loop, client, &frame);
    }
    loop->api.zmq_msg_close(&frame);
    return outcome;
}

static int move_replies(struct relay_loop *loop, struct instance *from, int most) {
    int outcome = MOVED_ONE;
    for (int n = 0; n < most && outcome == MOVED_ONE; n++)
        outcome = move_reply(loop, from);
    return outcome;
}

/* --- the loop */

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* items: 0 the wake-up, 1 the front, 2.. the instances in the order of their slots. Returns how many. */
static int fill(struct relay_loop *loop) {
    struct relay_poll *item = loop->polls;
    *item++ = (struct relay_poll){.fd = loop->wake, .events = ZMQ_POLLIN};
    bool wants_calls = !loop->held && any_room(loop);
    /* With no event at all zmq_poll would not look at the socket, and the end of its context would not be seen. */
    *item++ = (struct relay_poll){.socket = loop->front, .events = wants_calls ? ZMQ_POLLIN : ZMQ_POLLERR};
    for (unsigned n = 0; n < loop->used; n++) {
        struct instance *instance = &loop->instances[n];
        if (instance->socket)
            *item++ = (struct relay_poll){
                .socket = instance->socket,
                .events = ZMQ_POLLIN | (instance->full && !instance->retired ? ZMQ_POLLOUT : 0),
            };
    }
    return (int)(item - loop->polls);
}

static int turn(struct relay_loop *loop) {
    struct relay_poll *item = loop->polls + 2;
    for (unsigned n = 0; n < loop->used; n++) {
        struct instance *instance = &loop->instances[n];
        if (!instance->socket)
            continue;
        if (item->revents & ZMQ_POLLOUT)
            instance->full = false;
        if (item++->revents & ZMQ_POLLIN) {
            int outcome = move_replies(loop, instance, BURST);
            if (outcome >= 0)
                return outcome;
        }
    }
    return loop->held || loop->polls[1].revents & ZMQ_POLLIN ? move_calls(loop) : MOVED_ALL;
}

int relay_loop_run(struct relay_loop *loop, int timeout_ms) {
    int64_t end = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
    for (;;) {
        int64_t left = timeout_ms < 0 ? -1 : end - now_ms();
        if (timeout_ms >= 0 && left <= 0)
            return RELAY_TIMEOUT;
        if (loop->api.zmq_poll(loop->polls, fill(loop), (long)left) < 0) {
            int outcome = failed(loop);
            if (outcome != MOVED_ALL)
                return outcome;
            continue;
        }
        if (loop->polls[0].revents)
            return RELAY_WOKEN;
        int outcome = turn(loop);
        if (outcome >= 0)
            return outcome;
        if (loop->drained) {
            loop->drained = false;
            return RELAY_DRAINED;
        }
    }
}

int relay_loop_flush(struct relay_loop *loop) {
    for (unsigned n = 0; n < loop->used; n++) {
        int outcome = loop->instances[n].socket ? move_replies(loop, &loop->instances[n], 1000) : MOVED_ALL;
        if (outcome >= 0)
            return outcome;
    }
    return RELAY_WOKEN;
}

/* --- instances, and its life */

int relay_loop_add(struct relay_loop *loop, void *socket) {
    unsigned slot = 0;
    while (slot < loop->used && loop->instances[slot].socket)
        slot++;
    if (slot == loop->max_instances)
        return -1;
    loop->used = slot < loop->used ? loop->used : slot + 1;
    loop->instances[slot] = (struct instance){.socket = socket, .full = true};
    return (int)slot;
}

int64_t relay_loop_retire(struct relay_loop *loop, int slot) {
    loop->instances[slot].retired = true;
    return loop->instances[slot].in_flight;
}

void relay_loop_remove(struct relay_loop *loop, int slot) {
    move_replies(loop, &loop->instances[slot], 100000);
    loop->instances[slot] = (struct instance){0};
    while (loop->used && !loop->instances[loop->used - 1].socket)
        loop->used--;
    if (loop->next >= loop->used)
        loop->next = 0;
}

int64_t relay_loop_in_flight(const struct relay_loop *loop, int slot) {
    return __atomic_load_n(&loop->instances[slot].in_flight, __ATOMIC_RELAXED);
}

int relay_loop_error(const struct relay_loop *loop) { return loop->error; }

void relay_loop_counts(const struct relay_loop *loop, struct relay_counts *counts) {
    const uint64_t *from = (const uint64_t *)&loop->counts;
    for (size_t n = 0; n < sizeof *counts / sizeof *from; n++)
        ((uint64_t *)counts)[n] = __atomic_load_n(from + n, __ATOMIC_RELAXED);
}

const char *relay_function_name(unsigned number) {
#define NAME(result, name, parameters) #name,
    static const char *const names[] = {RELAY_FUNCTIONS(NAME)};
#undef NAME
    return number < sizeof names / sizeof *names ? names[number] : NULL;
}

struct relay_loop *relay_loop_new(void *const *functions, void *front, int wake, unsigned max_instances) {
    struct relay_loop *loop = calloc(1, sizeof *loop + max_instances * sizeof(struct instance));
    struct relay_poll *polls = calloc(max_instances + 2, sizeof *polls);
    if (!loop || !polls) {
        free(loop);
        free(polls);
        return NULL;
    }
    memcpy(&loop->api, functions, sizeof loop->api);
    loop->front = front;
    loop->wake = wake;
    loop->polls = polls;
    loop->max_instances = max_instances;
    return loop;
}

void relay_loop_free(struct relay_loop *loop) {
    if (loop->held)
        loop->api.zmq_msg_close(&loop->call);
    free(loop->polls);
    free(loop);
}
