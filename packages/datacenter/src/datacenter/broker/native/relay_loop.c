/* See relay_loop.h.
 *
 * Why nothing can block or be cut, whoever does not read (libzmq 4.3.5):
 * - Every send and every first receive is DONTWAIT. The parts of a message arrive together, so later receives find them.
 * - Calls that no instance has room for wait, whole, in a queue; when it is full the front is not read: TCP then slows the clients.
 * - The front is a ROUTER with MANDATORY, so a reply to a full or vanished client fails at once, at its first part
 *   (router.cpp:xsend), and is counted, instead of being dropped in silence; the high-water mark is checked at that part only, so
 *   the second one goes with it. One client that does not read never holds up the others.
 * - No return value of the poll is trusted beyond "look there": each source is read until it has nothing.
 * - The wake-up descriptor is in every poll, and each source is read in bursts, so a stop is seen within two bursts. */
#define _POSIX_C_SOURCE 200809L
#include "relay_loop.h"

#include "call_frame.h"
#include "in_flight.h"
#include "messages.h"

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
#define MOST_TIMEOUT_MS (INT64_C(1) << 40) /* 34 years: no sum of it overflows */

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
    bool full; /* refused a call: not tried again until poll says POLLOUT */
};

struct waiting {
    message call; /* labelled */
    uint64_t id;
    int64_t deadline_ms;
};

struct relay_loop {
    struct messages messages;
    struct relay_limits limits;
    void *front;
    int wake;
    bool drained;
    struct failure expired;
    struct relay_counts counts;
    struct relay_poll *polls;
    int64_t now_ms;          /* as of the last poll */
    struct waiting *waiting; /* a ring of limits.max_waiting */
    unsigned first, waiting_count;
    int64_t earliest_deadline_ms; /* no waiting call's is before it */
    struct in_flight in_flight;
    int64_t next_sweep_ms; /* of in_flight: not before it, so that many short deadlines do not cost a search each */
    unsigned used, next;   /* slots from `used` on are free */
    struct instance instances[];
};

/* One thread writes, any may read. */
static void count(uint64_t *counter) { __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED); }

static void add_in_flight(struct instance *instance, int64_t more) {
    __atomic_store_n(&instance->in_flight, instance->in_flight + more, __ATOMIC_RELAXED);
}

/* --- to clients */

static int tell(struct relay_loop *loop, uint64_t id, message *frame, uint64_t *counter) {
    enum delivery what;
    int outcome = deliver(&loop->messages, loop->front, id, frame, &what);
    if (what != NOT_SENT)
        count(what == DELIVERED ? counter : what == NO_ROOM ? &loop->counts.replies_no_room : &loop->counts.replies_no_client);
    return outcome;
}

/* Ends a call with an answer of the relay's own. */
static int answer(struct relay_loop *loop, uint64_t id, const struct failure *failure, uint64_t *counter) {
    message frame;
    if (loop->messages.api.zmq_msg_init_size(&frame, LEAST_FRAME + failure->size) < 0)
        return failed(&loop->messages);
    unsigned char *data = loop->messages.api.zmq_msg_data(&frame);
    memcpy(data, "\x96\x02\xcf", ID_AT); /* an array of six, wire.Failure's tag, an id */
    write_id(data, id & ~LABEL_BITS);
    memcpy(data + LEAST_FRAME, failure->data, failure->size);
    int outcome = tell(loop, id, &frame, counter);
    loop->messages.api.zmq_msg_close(&frame);
    return outcome;
}

/* --- calls that wait */

static struct waiting *waiting_at(struct relay_loop *loop, unsigned number) {
    return &loop->waiting[(loop->first + number) % loop->limits.max_waiting];
}

static void pop_waiting(struct relay_loop *loop) {
    loop->first = (loop->first + 1) % loop->limits.max_waiting;
    if (--loop->waiting_count == 0) {
        loop->first = 0; /* the ring's beginning is in the cache */
        loop->earliest_deadline_ms = INT64_MAX;
    }
}

/* Ends the waiting calls whose deadline has passed; the others close ranks. */
static int expire_waiting(struct relay_loop *loop) {
    const struct relay_api *api = &loop->messages.api;
    unsigned all = loop->waiting_count, kept = 0;
    int outcome = MOVED_ONE;
    loop->earliest_deadline_ms = INT64_MAX;
    for (unsigned n = 0; n < all; n++) {
        struct waiting *call = waiting_at(loop, n), *to = waiting_at(loop, kept);
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
        if (call->deadline_ms < loop->earliest_deadline_ms)
            loop->earliest_deadline_ms = call->deadline_ms;
    }
    loop->waiting_count = kept;
    return outcome;
}

/* Whether what was received is a call: labels it, and notes what is to be known of it. */
static bool read_call(struct relay_loop *loop, message *client, struct waiting *call) {
    const struct relay_api *api = &loop->messages.api;
    unsigned char *data = api->zmq_msg_data(&call->call);
    uint64_t timeout_ms, id = call_id(data, api->zmq_msg_size(&call->call), &timeout_ms);
    call->id = id ? labelled(id, api->zmq_msg_data(client), api->zmq_msg_size(client)) : 0;
    if (!call->id)
        return false;
    write_id(data, call->id);
    call->deadline_ms = loop->now_ms + (timeout_ms < MOST_TIMEOUT_MS ? (int64_t)timeout_ms : MOST_TIMEOUT_MS);
    if (call->deadline_ms < loop->earliest_deadline_ms)
        loop->earliest_deadline_ms = call->deadline_ms;
    return true;
}

/* Reads one message from the front; a call is put last of those that wait. */
static int take_call(struct relay_loop *loop) {
    const struct relay_api *api = &loop->messages.api;
    struct waiting *last = waiting_at(loop, loop->waiting_count);
    message client;
    int outcome = receive(&loop->messages, &client, loop->front);
    if (outcome != MOVED_ONE)
        return outcome;
    bool more = api->zmq_msg_more(&client), is_call = false;
    if (more) {
        outcome = receive(&loop->messages, &last->call, loop->front);
        if (outcome == MOVED_ONE) {
            more = api->zmq_msg_more(&last->call);
            is_call = !more && read_call(loop, &client, last);
            if (is_call)
                loop->waiting_count++;
            else
                api->zmq_msg_close(&last->call);
        }
    }
    api->zmq_msg_close(&client);
    if (outcome != MOVED_ONE || is_call)
        return outcome;
    count(&loop->counts.malformed_calls);
    return drop_rest(&loop->messages, loop->front, more);
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

/* Hands over what waits, the oldest first, while there is room. MOVED_ONE unless something failed. */
static int hand_over(struct relay_loop *loop) {
    while (loop->waiting_count) {
        struct waiting *first = waiting_at(loop, 0);
        struct instance *to;
        int outcome = MOVED_ONE;
        if (first->deadline_ms <= loop->now_ms) {
            outcome = answer(loop, first->id, &loop->expired, &loop->counts.expired);
            loop->messages.api.zmq_msg_close(&first->call);
        } else if (in_flight_find(&loop->in_flight, first->id)) { /* two replies to one number could not be told apart */
            count(&loop->counts.duplicate_calls);
            loop->messages.api.zmq_msg_close(&first->call);
        } else if (!in_flight_room(&loop->in_flight) || !(to = choose(loop))) {
            return MOVED_ONE;
        } else if (loop->messages.api.zmq_msg_send(&first->call, to->socket, ZMQ_DONTWAIT) >= 0) {
            in_flight_put(&loop->in_flight, first->id, (uint32_t)(to - loop->instances),
                          first->deadline_ms + loop->limits.late_reply_ms);
            add_in_flight(to, 1);
            count(&loop->counts.calls);
        } else {
            outcome = failed(&loop->messages);
            if (outcome != MOVED_ALL)
                return outcome;
            to->full = true;
            continue;
        }
        pop_waiting(loop);
        if (outcome != MOVED_ONE)
            return outcome;
    }
    return MOVED_ONE;
}

static int take_calls(struct relay_loop *loop) {
    int outcome = MOVED_ONE;
    for (int n = 0; n < BURST && outcome == MOVED_ONE && loop->waiting_count < loop->limits.max_waiting; n++)
        outcome = take_call(loop);
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

static int move_reply(struct relay_loop *loop, struct instance *from) {
    const struct relay_api *api = &loop->messages.api;
    message frame;
    int outcome = receive(&loop->messages, &frame, from->socket);
    if (outcome != MOVED_ONE)
        return outcome;
    bool more = api->zmq_msg_more(&frame);
    unsigned char *data = api->zmq_msg_data(&frame);
    uint64_t id = more ? 0 : frame_id(data, api->zmq_msg_size(&frame));
    struct flight *call = id ? in_flight_find(&loop->in_flight, id) : NULL;
    if (!id) {
        count(&loop->counts.malformed_replies);
        outcome = drop_rest(&loop->messages, from->socket, more);
    } else if (!call || &loop->instances[call->slot] != from) {
        count(&loop->counts.unknown_replies);
    } else {
        end_flight(loop, call);
        write_id(data, id & ~LABEL_BITS);
        outcome = tell(loop, id, &frame, &loop->counts.replies);
    }
    api->zmq_msg_close(&frame);
    return outcome;
}

static int move_replies(struct relay_loop *loop, struct instance *from, int most) {
    int outcome = MOVED_ONE;
    for (int n = 0; n < most && outcome == MOVED_ONE; n++)
        outcome = move_reply(loop, from);
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
            count(&loop->counts.unanswered);
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
    return loop->earliest_deadline_ms <= loop->now_ms ? expire_waiting(loop) : MOVED_ONE;
}

/* How long to poll: until `end_ms` at the latest (INT64_MAX: no limit). */
static long poll_ms(const struct relay_loop *loop, int64_t end_ms) {
    if (loop->in_flight.count && sweep_due_ms(loop) < end_ms)
        end_ms = sweep_due_ms(loop);
    if (loop->earliest_deadline_ms < end_ms)
        end_ms = loop->earliest_deadline_ms;
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
    bool wants_calls = loop->waiting_count < loop->limits.max_waiting;
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
    for (unsigned n = 0; n < loop->used; n++) {
        int outcome = loop->instances[n].socket ? move_replies(loop, &loop->instances[n], 1000) : MOVED_ALL;
        if (outcome >= 0)
            return outcome;
    }
    return RELAY_WOKEN;
}

/* --- instances, and its life */

static bool copy_failure(struct failure *to, const void *data, size_t size) {
    *to = (struct failure){malloc(size + 1), size};
    return to->data && (size == 0 || memcpy(to->data, data, size));
}

int relay_loop_add(struct relay_loop *loop, void *socket, const void *lost, size_t lost_size) {
    unsigned slot = 0;
    while (slot < loop->used && loop->instances[slot].socket)
        slot++;
    if (slot == loop->limits.max_instances)
        return -1;
    struct instance made = {.socket = socket};
    if (!copy_failure(&made.lost, lost, lost_size))
        return -2;
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
    free(instance->lost.data);
    *instance = (struct instance){0};
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

struct relay_loop *relay_loop_new(void *const *functions, void *front, int wake, const struct relay_limits *limits,
                                  const void *expired, size_t expired_size) {
    struct relay_loop *loop = calloc(1, sizeof *loop + limits->max_instances * sizeof(struct instance));
    if (!loop)
        return NULL;
    memcpy(&loop->messages.api, functions, sizeof loop->messages.api);
    loop->limits = *limits;
    loop->front = front;
    loop->wake = wake;
    loop->earliest_deadline_ms = INT64_MAX;
    loop->polls = calloc(limits->max_instances + 2, sizeof *loop->polls);
    loop->waiting = calloc(limits->max_waiting, sizeof *loop->waiting);
    bool has_table = in_flight_begin(&loop->in_flight, limits->max_in_flight);
    if (!copy_failure(&loop->expired, expired, expired_size) || !has_table || !loop->polls || !loop->waiting) {
        relay_loop_free(loop);
        return NULL;
    }
    return loop;
}

void relay_loop_free(struct relay_loop *loop) {
    while (loop->waiting_count) {
        loop->messages.api.zmq_msg_close(&waiting_at(loop, 0)->call);
        pop_waiting(loop);
    }
    for (unsigned n = 0; n < loop->used; n++)
        free(loop->instances[n].lost.data);
    in_flight_end(&loop->in_flight);
    free(loop->expired.data);
    free(loop->waiting);
    free(loop->polls);
    free(loop);
}
