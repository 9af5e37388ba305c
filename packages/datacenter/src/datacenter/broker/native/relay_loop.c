/* See relay_loop.h.
 *
 * Why nothing can block or be cut, whoever does not read (libzmq 4.3.5):
 * - Every send and every first receive is DONTWAIT. The parts of a message arrive together, so later receives find them.
 * - Calls that no instance has room for wait, whole, in a queue; when it is full the front is not read: TCP then slows the clients.
 * - The front is a ROUTER with MANDATORY, so a reply to a full or vanished client fails at once, at its first part
 *   (router.cpp:xsend), and is counted, instead of being dropped in silence; the high-water mark is checked at that part only, so
 *   the second one goes with it. One client that does not read never holds up the others.
 * - No return value of the poll is trusted beyond "look there": each source is read until it has nothing.
 * - The wake-up descriptor is in every poll, and each source is read in bursts, so a stop is seen within two bursts.
 * - Nothing is in a bundle when the loop polls or returns. */
#define _POSIX_C_SOURCE 200809L
#include "relay_loop.h"

#include "bundle.h"
#include "call_frame.h"
#include "from_clients.h"
#include "in_flight.h"
#include "messages.h"
#include "to_clients.h"

#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ZMQ_DONTWAIT 1
#define ZMQ_POLLIN 1
#define ZMQ_POLLOUT 2
#define ZMQ_POLLERR 4

enum { BURST = 256, LEAST_SWEEP_MS = 100, MOST_POLL_MS = 1000 * 1000 };

/* A wire.Failure from its code on. */
struct failure {
    unsigned char *data;
    size_t size;
};

struct instance {
    void *socket; /* NULL: a free slot */
    struct failure lost;
    int64_t in_flight;
    bool ready, retired;
    bool full;            /* refused calls: not tried again until poll says POLLOUT */
    struct bundle *calls; /* in flight by the books, and sent at the end of hand_over */
};

struct relay_loop {
    struct messages messages;
    struct from_clients waiting;
    struct to_clients clients;
    struct relay_limits limits;
    void *front;
    int wake;
    bool drained;
    struct failure expired;
    struct relay_counts counts;
    struct relay_poll *polls;
    int64_t now_ms; /* as of the last poll */
    struct in_flight in_flight;
    int64_t next_sweep_ms; /* of in_flight: not before it, so that many short deadlines do not cost a search each */
    unsigned used, next; /* slots from `used` on are free */
    struct instance instances[];
};

static void add_in_flight(struct instance *instance, int64_t more) {
    __atomic_store_n(&instance->in_flight, instance->in_flight + more, __ATOMIC_RELAXED);
}

/* --- to clients */

/* Ends a call with an answer of the relay's own. */
static int answer(struct relay_loop *loop, uint64_t id, const struct failure *failure, uint64_t *counter) {
    size_t size = LEAST_FRAME + failure->size;
    message frame;
    if (loop->messages.api.zmq_msg_init_size(&frame, size) < 0)
        return failed(&loop->messages);
    unsigned char *data = loop->messages.api.zmq_msg_data(&frame);
    memcpy(data, "\x96\x02\xcf", ID_AT); /* an array of six, wire.Failure's tag, an id */
    write_id(data, id & ~LABEL_BITS);
    memcpy(data + LEAST_FRAME, failure->data, failure->size);
    int outcome = tell(&loop->clients, id, data, size, &frame, counter);
    loop->messages.api.zmq_msg_close(&frame);
    return outcome;
}

/* --- calls that wait */

/* Ends the waiting calls whose deadline has passed; the others close ranks. */
static int expire_waiting(struct relay_loop *loop) {
    const struct relay_api *api = &loop->messages.api;
    unsigned all = loop->waiting.count, kept = 0;
    int outcome = MOVED_ONE;
    loop->waiting.earliest_deadline_ms = INT64_MAX;
    for (unsigned n = 0; n < all; n++) {
        struct waiting *call = waiting_at(&loop->waiting, n), *to = waiting_at(&loop->waiting, kept);
        if (call->deadline_ms <= loop->now_ms && outcome == MOVED_ONE) {
            outcome = answer(loop, call->id, &loop->expired, &loop->counts.expired);
            api->zmq_msg_close(&call->call);
            continue;
        }
        if (to != call) {
            to->id = call->id;
            to->deadline_ms = call->deadline_ms;
            api->zmq_msg_init(&to->call);
            api->zmq_msg_move(&to->call, &call->call);
            api->zmq_msg_close(&call->call);
        }
        kept++;
        if (call->deadline_ms < loop->waiting.earliest_deadline_ms)
            loop->waiting.earliest_deadline_ms = call->deadline_ms;
    }
    loop->waiting.count = kept;
    return outcome;
}

/* --- calls: front to back */

static bool has_room(const struct instance *instance) {
    return instance->ready && !instance->retired && !instance->full;
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

/* Notes that an instance was handed a call. */
static void begin_flight(struct relay_loop *loop, struct instance *to, const struct waiting *call) {
    in_flight_put(&loop->in_flight, call->id, (uint32_t)(to - loop->instances), call->deadline_ms + loop->limits.late_reply_ms);
    add_in_flight(to, 1);
}

/* An instance had no room for its bundle: those calls wait again, before all others. They have waited since the loop began to hand
 * over, so their places are still free. */
static int take_back(struct relay_loop *loop, struct instance *from) {
    unsigned char *data = from->calls->bytes;
    size_t size = from->calls->size, at = 0, frame_size;
    unsigned frames = from->calls->count;
    int outcome = MOVED_ONE;
    waiting_unpop(&loop->waiting, frames);
    for (unsigned n = 0; n < frames; n++) {
        const unsigned char *frame = bundle_next(data, size, &at, &frame_size);
        struct waiting *call = waiting_at(&loop->waiting, n);
        struct flight *flight = in_flight_find(&loop->in_flight, frame_id(frame, frame_size));
        call->id = flight->id;
        waiting_until(&loop->waiting, call, flight->until_ms - loop->limits.late_reply_ms);
        in_flight_drop(&loop->in_flight, flight);
        add_in_flight(from, -1);
        int copied = copy(&loop->messages, &call->call, frame, frame_size);
        outcome = copied == MOVED_ONE ? outcome : copied;
    }
    return outcome;
}

/* Sends what was put together for an instance. MOVED_ALL: it has no room, and they wait again. */
static int send_calls(struct relay_loop *loop, struct instance *to) {
    unsigned frames = to->calls->count;
    if (!frames)
        return MOVED_ONE;
    size_t size;
    const unsigned char *data = bundle_message(to->calls, &size);
    int outcome = MOVED_ONE;
    if (loop->messages.api.zmq_send(to->socket, data, size, ZMQ_DONTWAIT) >= 0) {
        count(&loop->counts.calls, frames);
    } else {
        outcome = failed(&loop->messages);
        to->full = true;
        if (outcome == MOVED_ALL && take_back(loop, to) != MOVED_ONE)
            outcome = RELAY_FAILED; /* no memory */
    }
    to->calls->count = 0;
    return outcome;
}

/* Hands a call to an instance, a small one at the end of hand_over. MOVED_ALL: it has no room; others may wait before this one now. */
static int hand_to(struct relay_loop *loop, struct instance *to, struct waiting *call) {
    const struct relay_api *api = &loop->messages.api;
    const unsigned char *data = api->zmq_msg_data(&call->call);
    size_t size = api->zmq_msg_size(&call->call);
    bool added = bundle_add(to->calls, data, size);
    if (!added) {
        int outcome = send_calls(loop, to);
        if (outcome != MOVED_ONE)
            return outcome;
        added = bundle_add(to->calls, data, size);
    }
    if (added) {
        api->zmq_msg_close(&call->call);
    } else if (api->zmq_msg_send(&call->call, to->socket, ZMQ_DONTWAIT) >= 0) {
        count(&loop->counts.calls, 1);
    } else {
        to->full = true;
        return failed(&loop->messages);
    }
    begin_flight(loop, to, call);
    return MOVED_ONE;
}

/* Hands what waits to instances, the oldest first, while one is not known to be full. */
static int place_calls(struct relay_loop *loop) {
    while (loop->waiting.count) {
        struct waiting *first = waiting_at(&loop->waiting, 0);
        struct instance *to;
        int outcome = MOVED_ONE;
        if (first->deadline_ms <= loop->now_ms) {
            outcome = answer(loop, first->id, &loop->expired, &loop->counts.expired);
            loop->messages.api.zmq_msg_close(&first->call);
        } else if (in_flight_find(&loop->in_flight, first->id)) { /* two replies to one number could not be told apart */
            count(&loop->counts.duplicate_calls, 1);
            loop->messages.api.zmq_msg_close(&first->call);
        } else if (!in_flight_room(&loop->in_flight) || !(to = choose(loop))) {
            return MOVED_ONE;
        } else {
            outcome = hand_to(loop, to, first);
            if (outcome == MOVED_ALL)
                continue;
            if (outcome != MOVED_ONE)
                return outcome;
        }
        waiting_pop(&loop->waiting);
        if (outcome != MOVED_ONE)
            return outcome;
    }
    return MOVED_ONE;
}

/* Hands over what waits, the oldest first, while there is room. MOVED_ONE unless something failed. */
static int hand_over(struct relay_loop *loop) {
    for (bool refused = true; refused;) { /* by one more instance, each time */
        int outcome = place_calls(loop);
        refused = false;
        for (unsigned n = 0; n < loop->used && (outcome == MOVED_ONE || outcome == MOVED_ALL); n++) {
            outcome = loop->instances[n].socket ? send_calls(loop, &loop->instances[n]) : MOVED_ONE;
            refused |= outcome == MOVED_ALL;
        }
        if (outcome >= 0)
            return outcome;
    }
    return tell_rest(&loop->clients);
}

static int take_calls(struct relay_loop *loop) {
    unsigned frames;
    int outcome = MOVED_ONE;
    for (unsigned n = 0; n < BURST && outcome == MOVED_ONE && loop->waiting.count < loop->waiting.most; n += frames + !frames)
        outcome = take_message(&loop->waiting, loop->now_ms, &frames);
    return outcome;
}

static bool woken(const struct relay_loop *loop) {
    struct pollfd item = {.fd = loop->wake, .events = POLLIN};
    return poll(&item, 1, 0) > 0;
}

/* A call that was sent after an instance was known to be gone does not go to it: whoever knows has written the wake-up before, so it
 * is looked at between the two. The poll's own look was before the calls came: zmq_poll asks the sockets later than the descriptors. */
static int move_calls(struct relay_loop *loop) {
    int outcome = hand_over(loop); /* makes room */
    if (outcome == MOVED_ONE)
        outcome = take_calls(loop);
    if (outcome >= 0)
        return outcome;
    return woken(loop) ? RELAY_WOKEN : hand_over(loop);
}

/* --- replies: back to front */

/* Takes a call out of those in flight. */
static void end_flight(struct relay_loop *loop, struct flight *call) {
    struct instance *instance = &loop->instances[call->slot];
    in_flight_drop(&loop->in_flight, call);
    add_in_flight(instance, -1);
    loop->drained |= instance->in_flight == 0 && instance->retired;
}

/* `whole`: the message that the frame is, NULL if it is a part of a bundle. */
static int move_reply(struct relay_loop *loop, struct instance *from, unsigned char *frame, size_t size, message *whole) {
    uint64_t id = frame_id(frame, size);
    struct flight *call = id ? in_flight_find(&loop->in_flight, id) : NULL;
    if (!id) {
        count(&loop->counts.malformed_replies, 1);
    } else if (!call || &loop->instances[call->slot] != from) {
        count(&loop->counts.unknown_replies, 1);
    } else {
        end_flight(loop, call);
        write_id(frame, id & ~LABEL_BITS);
        return tell(&loop->clients, id, frame, size, whole, &loop->counts.replies);
    }
    return MOVED_ONE;
}

/* Moves what is in one message, `*frames` replies at most. */
static int move_message(struct relay_loop *loop, struct instance *from, unsigned *frames) {
    const struct relay_api *api = &loop->messages.api;
    message received;
    *frames = 0;
    int outcome = receive(&loop->messages, &received, from->socket);
    if (outcome != MOVED_ONE)
        return outcome;
    bool more = api->zmq_msg_more(&received);
    unsigned char *data = api->zmq_msg_data(&received);
    size_t size = api->zmq_msg_size(&received), at = 0, frame_size;
    *frames = more ? 0 : bundle_frames(data, size);
    message *whole = bundle_is(data, size) ? NULL : &received;
    for (unsigned n = 0; n < *frames && outcome == MOVED_ONE; n++) {
        unsigned char *frame = bundle_next(data, size, &at, &frame_size);
        outcome = move_reply(loop, from, frame, frame_size, whole);
    }
    api->zmq_msg_close(&received);
    if (outcome != MOVED_ONE || *frames)
        return outcome;
    count(&loop->counts.malformed_replies, 1);
    return drop_rest(&loop->messages, from->socket, more);
}

static int move_replies(struct relay_loop *loop, struct instance *from, unsigned most) {
    unsigned frames;
    int outcome = MOVED_ONE;
    for (unsigned n = 0; n < most && outcome == MOVED_ONE; n += frames + !frames)
        outcome = move_message(loop, from, &frames);
    return outcome;
}

/* --- the loop */

/* Forgets calls that nobody answered in time. */
static void sweep(struct relay_loop *loop) {
    struct in_flight *table = &loop->in_flight;
    struct flight *call;
    table->earliest_ms = INT64_MAX;
    for (size_t at = 0; (call = in_flight_next(table, &at));) {
        if (call->until_ms <= loop->now_ms) {
            end_flight(loop, call);
            count(&loop->counts.unanswered, 1);
            continue;
        }
        if (call->until_ms < table->earliest_ms)
            table->earliest_ms = call->until_ms;
        at++;
    }
    loop->next_sweep_ms = loop->now_ms + LEAST_SWEEP_MS;
}

static int64_t sweep_due_ms(const struct relay_loop *loop) {
    int64_t earliest = loop->in_flight.earliest_ms;
    return earliest > loop->next_sweep_ms ? earliest : loop->next_sweep_ms;
}

/* Ends what has had its time. MOVED_ONE unless something failed. */
static int let_expire(struct relay_loop *loop) {
    if (loop->in_flight.count && sweep_due_ms(loop) <= loop->now_ms)
        sweep(loop);
    return loop->waiting.earliest_deadline_ms <= loop->now_ms ? expire_waiting(loop) : MOVED_ONE;
}

/* How long to poll: until `end_ms` at the latest (INT64_MAX: no limit). */
static long poll_ms(const struct relay_loop *loop, int64_t end_ms) {
    if (loop->in_flight.count && sweep_due_ms(loop) < end_ms)
        end_ms = sweep_due_ms(loop);
    if (loop->waiting.earliest_deadline_ms < end_ms)
        end_ms = loop->waiting.earliest_deadline_ms;
    if (end_ms == INT64_MAX)
        return -1;
    int64_t left = end_ms - loop->now_ms;
    return left < 0 ? 0 : left > MOST_POLL_MS ? MOST_POLL_MS : (long)left;
}

static void look_at_clock(struct relay_loop *loop) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    loop->now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* items: 0 the wake-up, 1 the front, 2.. the instances in the order of their slots. Returns how many. */
static int fill(struct relay_loop *loop) {
    struct relay_poll *item = loop->polls;
    *item++ = (struct relay_poll){.fd = loop->wake, .events = ZMQ_POLLIN};
    bool wants_calls = loop->waiting.count < loop->waiting.most;
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
    /* After the replies: one that has come is not overtaken by the end of its time. */
    int outcome = let_expire(loop);
    if (outcome == MOVED_ONE)
        outcome = tell_rest(&loop->clients);
    if (outcome == MOVED_ONE)
        outcome = loop->polls[1].revents & ZMQ_POLLIN ? move_calls(loop) : hand_over(loop);
    return outcome;
}

int relay_loop_run(struct relay_loop *loop, int timeout_ms) {
    look_at_clock(loop);
    int64_t end = timeout_ms < 0 ? INT64_MAX : loop->now_ms + timeout_ms;
    int outcome = hand_over(loop); /* an instance may have become ready since, and nothing in the poll would tell of it */
    if (outcome >= 0)
        return outcome;
    for (;;) {
        if (loop->now_ms >= end)
            return RELAY_TIMEOUT;
        int ready = loop->messages.api.zmq_poll(loop->polls, fill(loop), poll_ms(loop, end));
        look_at_clock(loop);
        if (ready < 0) {
            outcome = failed(&loop->messages);
            if (outcome != MOVED_ALL)
                return outcome;
            continue;
        }
        if (loop->polls[0].revents)
            return RELAY_WOKEN;
        outcome = turn(loop);
        if (outcome >= 0)
            return outcome;
        if (loop->drained) {
            loop->drained = false;
            return RELAY_DRAINED;
        }
    }
}

int relay_loop_flush(struct relay_loop *loop) {
    int outcome = MOVED_ALL;
    for (unsigned n = 0; n < loop->used && outcome < 0; n++)
        outcome = loop->instances[n].socket ? move_replies(loop, &loop->instances[n], 1000) : MOVED_ALL;
    if (outcome < 0)
        outcome = tell_rest(&loop->clients);
    return outcome < 0 ? RELAY_WOKEN : outcome;
}

/* --- instances, and its life */

static bool copy_failure(struct failure *to, const void *data, size_t size) {
    *to = (struct failure){malloc(size + 1), size};
    return to->data && (size == 0 || memcpy(to->data, data, size));
}

static void free_instance(struct instance *instance) {
    free(instance->lost.data);
    free(instance->calls);
    *instance = (struct instance){0};
}

int relay_loop_add(struct relay_loop *loop, void *socket, const void *lost, size_t lost_size) {
    unsigned slot = 0;
    while (slot < loop->used && loop->instances[slot].socket)
        slot++;
    if (slot == loop->limits.max_instances)
        return -1;
    struct instance made = {.socket = socket, .calls = calloc(1, sizeof *made.calls)};
    if (!copy_failure(&made.lost, lost, lost_size) || !made.calls) {
        free_instance(&made);
        return -2;
    }
    loop->used = slot < loop->used ? loop->used : slot + 1;
    loop->instances[slot] = made;
    return (int)slot;
}

void relay_loop_ready(struct relay_loop *loop, int slot) { loop->instances[slot].ready = true; }

int64_t relay_loop_retire(struct relay_loop *loop, int slot) {
    loop->instances[slot].retired = true;
    return loop->instances[slot].in_flight;
}

int64_t relay_loop_remove(struct relay_loop *loop, int slot) {
    struct instance *instance = &loop->instances[slot];
    move_replies(loop, instance, 100000);
    int64_t lost = instance->in_flight;
    struct flight *call;
    for (size_t at = 0; instance->in_flight && (call = in_flight_next(&loop->in_flight, &at));) {
        if (call->slot != (uint32_t)slot) {
            at++;
            continue;
        }
        uint64_t id = call->id;
        end_flight(loop, call);
        answer(loop, id, &instance->lost, &loop->counts.lost); /* a failure means that the context ends, and the clients see that */
    }
    tell_rest(&loop->clients);
    free_instance(instance);
    while (loop->used && !loop->instances[loop->used - 1].socket)
        loop->used--;
    if (loop->next >= loop->used)
        loop->next = 0;
    return lost;
}

int64_t relay_loop_in_flight(const struct relay_loop *loop, int slot) {
    return __atomic_load_n(&loop->instances[slot].in_flight, __ATOMIC_RELAXED);
}

int relay_loop_error(const struct relay_loop *loop) { return loop->messages.error; }

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

struct relay_loop *relay_loop_make(void *const *functions, void *front, int wake, const struct relay_limits *limits,
                                  const void *expired, size_t expired_size) {
    struct relay_loop *loop = calloc(1, sizeof *loop + limits->max_instances * sizeof(struct instance));
    if (!loop)
        return NULL;
    memcpy(&loop->messages.api, functions, sizeof loop->messages.api);
    loop->limits = *limits;
    loop->front = front;
    loop->waiting = (struct from_clients){&loop->messages, front, &loop->counts, .most = limits->max_waiting};
    loop->clients = (struct to_clients){.messages = &loop->messages, .front = front, .counts = &loop->counts};
    loop->wake = wake;
    loop->polls = calloc(limits->max_instances + 2, sizeof *loop->polls);
    bool has_table = in_flight_begin(&loop->in_flight, limits->max_in_flight), has_ring = waiting_begin(&loop->waiting);
    if (!copy_failure(&loop->expired, expired, expired_size) || !has_table || !has_ring || !loop->polls) {
        relay_loop_free(loop);
        return NULL;
    }
    return loop;
}

void relay_loop_free(struct relay_loop *loop) {
    waiting_end(&loop->waiting);
    for (unsigned n = 0; n < loop->used; n++)
        free_instance(&loop->instances[n]);
    in_flight_end(&loop->in_flight);
    free(loop->expired.data);
    free(loop->polls);
    free(loop);
}
