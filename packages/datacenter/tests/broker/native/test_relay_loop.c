/* The relay's loop against the real libzmq: labels, garbage, calls that end without a reply, and its own end in states where a proxy
 * would block.
 * usage: tests LIBZMQ */
#define _GNU_SOURCE
#include "bundle.h"
#include "call_frame.h"
#include "check.h"
#include "relay_loop.h"

#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { DEALER = 5, ROUTER = 6, ROUTING_ID = 5, TYPE = 16, RCVMORE = 13, LINGER = 17, SNDHWM = 23, RCVHWM = 24, RCVTIMEO = 27, LAST_ENDPOINT = 32 };
enum { MANDATORY = 33, IMMEDIATE = 39, SNDMORE = 2, DONTWAIT = 1 };

/* libzmq's functions that only the tests need */
static void *(*ctx_new)(void);
static int (*ctx_term)(void *);
static void *(*socket_new)(void *, int);
static int (*socket_close)(void *);
static int (*set)(void *, int, const void *, size_t);
static int (*get)(void *, int, void *, size_t *);
static int (*bind_to)(void *, const char *);
static int (*connect_to)(void *, const char *);
static int (*send_part)(void *, const void *, size_t, int);
static int (*receive_raw)(void *, void *, size_t, int);
static int (*poll_sockets)(struct relay_poll *, int, long);
static void *functions[32]; /* what the loop needs */

static void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    if (!library)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library);
#define FIND(into, name) CHECK((*(void **)&into = dlsym(library, name)))
    FIND(ctx_new, "zmq_ctx_new");
    FIND(ctx_term, "zmq_ctx_term");
    FIND(socket_new, "zmq_socket");
    FIND(socket_close, "zmq_close");
    FIND(set, "zmq_setsockopt");
    FIND(get, "zmq_getsockopt");
    FIND(bind_to, "zmq_bind");
    FIND(connect_to, "zmq_connect");
    FIND(send_part, "zmq_send");
    FIND(receive_raw, "zmq_recv");
    FIND(poll_sockets, "zmq_poll");
    for (unsigned n = 0; relay_function_name(n); n++)
        FIND(functions[n], relay_function_name(n));
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- sockets */

/* What is left of the bundle that a socket has received. */
static struct rest {
    void *socket;
    bool routed, id_given;
    int id_size, left;
    unsigned char id[256], bytes[BUNDLE_BYTES];
    size_t size, at;
} rests[64];

static struct rest *rest_of(void *socket) {
    struct rest *rest = rests;
    while (rest->socket && rest->socket != socket)
        rest++;
    CHECK(rest < rests + 63);
    rest->socket = socket;
    return rest;
}

static int option_of(void *socket, int option) {
    int value;
    size_t size = sizeof value;
    CHECK(get(socket, option, &value, &size) == 0);
    return value;
}

static int part_of_rest(struct rest *rest, void *into, size_t room) {
    if (rest->routed && !rest->id_given) {
        rest->id_given = true;
        memcpy(into, rest->id, (size_t)rest->id_size);
        return rest->id_size;
    }
    size_t size;
    const unsigned char *frame = bundle_next(rest->bytes, rest->size, &rest->at, &size);
    rest->id_given = false;
    rest->left--;
    memcpy(into, frame, size < room ? size : room);
    return (int)size;
}

/* As zmq_recv, but the frames of a bundle come one by one, each with its routing id on a ROUTER. */
static int receive_part(void *socket, void *into, size_t room, int flags) {
    struct rest *rest = rest_of(socket);
    if (rest->left)
        return part_of_rest(rest, into, room);
    int size = receive_raw(socket, rest->bytes, sizeof rest->bytes, flags);
    if (size < 0)
        return size;
    rest->size = (size_t)size;
    if (option_of(socket, TYPE) == ROUTER && option_of(socket, RCVMORE)) {
        rest->id_size = size;
        memcpy(rest->id, rest->bytes, (size_t)size);
    } else if (bundle_is(rest->bytes, rest->size)) {
        CHECK((rest->left = (int)bundle_frames(rest->bytes, rest->size)) > 1);
        rest->routed = rest->id_given = option_of(socket, TYPE) == ROUTER;
        rest->at = 0;
        return part_of_rest(rest, into, room);
    }
    memcpy(into, rest->bytes, (size_t)size < room ? (size_t)size : room);
    return size;
}

static void *make(void *context, int type, int high_water) {
    void *socket = socket_new(context, type);
    *rest_of(socket) = (struct rest){.socket = socket};
    int timeout_ms = 5000, zero = 0, one = 1;
    CHECK(socket);
    CHECK(set(socket, RCVTIMEO, &timeout_ms, sizeof timeout_ms) == 0);
    CHECK(set(socket, LINGER, &zero, sizeof zero) == 0);
    CHECK(set(socket, SNDHWM, &high_water, sizeof high_water) == 0);
    CHECK(set(socket, RCVHWM, &high_water, sizeof high_water) == 0);
    if (type == ROUTER)
        CHECK(set(socket, MANDATORY, &one, sizeof one) == 0);
    return socket;
}

static void *listening(void *context, int high_water, char *endpoint) {
    void *socket = make(context, ROUTER, high_water);
    size_t size = 64;
    CHECK(bind_to(socket, "tcp://127.0.0.1:*") == 0);
    CHECK(get(socket, LAST_ENDPOINT, endpoint, &size) == 0);
    return socket;
}

static void *connected(void *context, int high_water, const char *endpoint, int immediate) {
    void *socket = make(context, DEALER, high_water);
    CHECK(set(socket, IMMEDIATE, &immediate, sizeof immediate) == 0);
    CHECK(connect_to(socket, endpoint) == 0);
    return socket;
}

enum { MOST = 4 };

/* A relay in its own thread, and services that this thread plays. */
struct stage {
    void *context, *front, *services[MOST], *backs[MOST];
    char address[64];
    int wake, count, outcome;
    struct relay_limits limits;
    struct relay_loop *loop;
    pthread_t thread;
};

static void *run(void *argument) {
    struct stage *stage = argument;
    do
        stage->outcome = relay_loop_run(stage->loop, -1);
    while (stage->outcome == RELAY_DRAINED);
    return NULL;
}

static const struct relay_limits usual = {.max_instances = MOST, .max_waiting = 1000, .max_in_flight = 200000, .late_reply_ms = 50};

static void resume(struct stage *stage) { CHECK(pthread_create(&stage->thread, NULL, run, stage) == 0); }

static void begin_limited(struct stage *stage, int services, int high_water, struct relay_limits limits) {
    char address[64];
    memset(rests, 0, sizeof rests);
    *stage = (struct stage){.context = ctx_new(), .wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .count = services};
    stage->limits = limits;
    stage->front = listening(stage->context, high_water, stage->address);
    stage->loop = relay_loop_make(functions, stage->front, stage->wake, &stage->limits, "expired", 7);
    for (int n = 0; n < services; n++) {
        stage->services[n] = listening(stage->context, high_water, address);
        stage->backs[n] = connected(stage->context, high_water, address, 1);
        CHECK(relay_loop_add(stage->loop, stage->backs[n], n ? "lost one" : "lost zero", n ? 8 : 9) == n);
        relay_loop_ready(stage->loop, n);
    }
    resume(stage);
}

static void begin(struct stage *stage, int services, int high_water) { begin_limited(stage, services, high_water, usual); }

/* Wakes the loop, which must return at once whatever the state. */
static void pause_loop(struct stage *stage) {
    uint64_t one = 1;
    int64_t began = now_ms();
    CHECK(write(stage->wake, &one, sizeof one) == sizeof one);
    CHECK(pthread_join(stage->thread, NULL) == 0);
    CHECK(now_ms() - began < 500);
    CHECK(stage->outcome == RELAY_WOKEN);
    CHECK(read(stage->wake, &one, sizeof one) == sizeof one);
}

/* Ends it, and closes everything. */
static void end(struct stage *stage, struct relay_counts *counts) {
    pause_loop(stage);
    relay_loop_counts(stage->loop, counts);
    relay_loop_free(stage->loop);
    for (int n = 0; n < stage->count; n++) {
        socket_close(stage->services[n]);
        socket_close(stage->backs[n]);
    }
    socket_close(stage->front);
    close(stage->wake);
    CHECK(ctx_term(stage->context) == 0);
}

enum { LEAST_CALL = 27, TIMEOUT_AT = 22 };

/* A call of `size` bytes whose id has `label` and `number`. */
static void compose(unsigned char *frame, size_t size, uint32_t label, uint32_t number, uint32_t timeout_ms) {
    memset(frame, 'x', size);
    memcpy(frame, "\x97\x01\xcf........\xa4""echo\xa4""back\xce", TIMEOUT_AT);
    write_id(frame, UINT64_C(1) << 63 | (uint64_t)label << 31 | number);
    for (int n = 3; n >= 0; n--, timeout_ms >>= 8)
        frame[TIMEOUT_AT + n] = (unsigned char)timeout_ms;
}

static void call_for(void *client, uint32_t number, size_t size, uint32_t timeout_ms) {
    unsigned char frame[4096];
    compose(frame, size, 0, number, timeout_ms);
    CHECK(send_part(client, frame, size, 0) == (int)size);
}

static void call(void *client, uint32_t number, size_t size) { call_for(client, number, size, 60000); }

/* The same for `calls` calls from number `first` on, as one message. */
static void call_together(void *client, uint32_t first, unsigned calls, size_t size) {
    struct bundle bundle = {0};
    unsigned char frame[BUNDLE_FRAME_BYTES];
    for (unsigned n = 0; n < calls; n++) {
        compose(frame, size, 0, first + n, 60000);
        CHECK(bundle_add(&bundle, frame, size));
    }
    CHECK(send_part(client, bundle.bytes, bundle.size, 0) == (int)bundle.size);
}

/* Takes a call at a service and answers it. */
static void serve(void *service) {
    unsigned char id[256], frame[4096];
    int id_size = receive_part(service, id, sizeof id, 0);
    CHECK(id_size > 0);
    int size = receive_part(service, frame, sizeof frame, 0);
    CHECK(size >= 11);
    CHECK(send_part(service, id, (size_t)id_size, SNDMORE) == id_size);
    CHECK(send_part(service, frame, (size_t)size, 0) == size);
}

static void expect(void *client, uint32_t number, size_t size) {
    unsigned char frame[4096], wanted[4096];
    compose(wanted, size, 0, number, 60000);
    CHECK(receive_part(client, frame, sizeof frame, 0) == (int)size);
    CHECK(memcmp(frame, wanted, size) == 0);
}

/* The relay's own answer to a call. */
static void expect_failure(void *client, uint32_t number, const char *tail) {
    unsigned char frame[256], head[LEAST_FRAME] = {0x96, 2, 0xcf};
    write_id(head, UINT64_C(1) << 63 | number);
    CHECK(receive_part(client, frame, sizeof frame, 0) == (int)(LEAST_FRAME + strlen(tail)));
    CHECK(memcmp(frame, head, LEAST_FRAME) == 0 && memcmp(frame + LEAST_FRAME, tail, strlen(tail)) == 0);
}

static struct relay_counts counts_of(const struct stage *stage) {
    struct relay_counts counts;
    relay_loop_counts(stage->loop, &counts);
    return counts;
}

#define UNTIL(condition)                                                                                                           \
    for (int64_t began = now_ms(); !(condition);) {                                                                                \
        CHECK(now_ms() - began < 5000);                                                                                            \
        poll(NULL, 0, 1);                                                                                                          \
    }

static void test_replies_return_to_their_callers(void) {
    struct stage stage;
    struct relay_counts counts;
    void *clients[3];
    begin(&stage, 2, 1000);
    for (int n = 0; n < 3; n++)
        clients[n] = connected(stage.context, 1000, stage.address, 0);
    for (uint32_t round = 0; round < 200; round++) {
        size_t size = LEAST_CALL + round * 7; /* both sides of libzmq's inline size */
        for (int n = 0; n < 3; n++)
            call(clients[n], round, size);
        UNTIL(counts_of(&stage).calls == 3 * (round + 1));
        for (int served = 0; served < 3;) /* whichever has one: the fewest unanswered get the next */
            for (int n = 0; n < 2; n++) {
                struct relay_poll item = {.socket = stage.services[n], .events = 1};
                if (rest_of(stage.services[n])->left || poll_sockets(&item, 1, 1) > 0) {
                    serve(stage.services[n]);
                    served++;
                }
            }
        for (int n = 0; n < 3; n++)
            expect(clients[n], round, size);
    }
    for (int n = 0; n < 3; n++)
        socket_close(clients[n]);
    end(&stage, &counts);
    CHECK(counts.calls == 600 && counts.replies == 600);
    CHECK(counts.malformed_calls == 0 && counts.malformed_replies == 0);
}

static void test_garbage_is_dropped_whole(void) {
    struct stage stage;
    struct relay_counts counts;
    unsigned char frame[64];
    begin(&stage, 1, 5000);
    void *client = connected(stage.context, 5000, stage.address, 0);
    void *named = make(stage.context, DEALER, 1000);
    CHECK(set(named, ROUTING_ID, "own", 3) == 0 && connect_to(named, stage.address) == 0);
    for (int n = 0; n < 2000; n++) /* one message of 2000 parts */
        CHECK(send_part(client, "x", 1, n < 1999 ? SNDMORE : 0) == 1);
    for (size_t size = 0; size < LEAST_CALL; size++) {
        compose(frame, sizeof frame, 0, 1, 9);
        CHECK(send_part(client, frame, size, 0) == (int)size);
    }
    compose(frame, sizeof frame, 77, 1, 9); /* a label of its own: another client's reply would be its aim */
    CHECK(send_part(client, frame, sizeof frame, 0) == sizeof frame);
    for (int at = 0; at < 4; at++) {
        compose(frame, sizeof frame, 0, 1, 9);
        frame[at] ^= at == 1 ? 0x80 : 0xf0;
        CHECK(send_part(client, frame, sizeof frame, 0) == sizeof frame);
    }
    call(named, 1, 32);
    UNTIL(counts_of(&stage).malformed_calls == 1 + LEAST_CALL + 1 + 4 + 1);
    call(client, 9, 32);
    unsigned char id[256];
    int size = receive_part(stage.services[0], id, sizeof id, 0);
    CHECK(receive_part(stage.services[0], frame, sizeof frame, 0) == 32);
    for (int n = 0; n < 3; n++) { /* replies that are none, then the reply */
        CHECK(send_part(stage.services[0], id, (size_t)size, SNDMORE) == size);
        CHECK(send_part(stage.services[0], n ? "no reply, that" : "part", n ? 14 : 4, n ? 0 : SNDMORE) > 0);
        if (!n)
            CHECK(send_part(stage.services[0], frame, 32, 0) == 32);
    }
    CHECK(send_part(stage.services[0], id, (size_t)size, SNDMORE) == size);
    CHECK(send_part(stage.services[0], frame, 32, 0) == 32);
    expect(client, 9, 32);
    socket_close(client);
    socket_close(named);
    end(&stage, &counts);
    CHECK(counts.calls == 1 && counts.replies == 1 && counts.malformed_replies == 3);
}

static void test_bundles_of_several_clients_and_instances(void) {
    enum { EACH = 30 };
    struct stage stage;
    struct relay_counts counts;
    unsigned char answers[2][EACH] = {0}, id[256], frame[4096];
    begin(&stage, 2, 1000);
    void *clients[2];
    for (int n = 0; n < 2; n++)
        clients[n] = connected(stage.context, 1000, stage.address, 0);
    for (int n = 0; n < 2; n++)
        call_together(clients[n], 0, EACH, 100);
    UNTIL(counts_of(&stage).calls == 2 * EACH);
    CHECK(relay_loop_in_flight(stage.loop, 0) == EACH && relay_loop_in_flight(stage.loop, 1) == EACH);
    for (int n = 0; n < 2; n++) { /* each answers all it has in one message, and a call of nobody */
        struct bundle replies = {0};
        int id_size = 0;
        for (int call = 0; call < EACH; call++) {
            id_size = receive_part(stage.services[n], id, sizeof id, 0);
            int size = receive_part(stage.services[n], frame, sizeof frame, 0);
            CHECK(size == 100 && bundle_add(&replies, frame, (size_t)size));
        }
        compose(frame, 100, 12345, 1, 1);
        CHECK(bundle_add(&replies, frame, 100) && bundle_add(&replies, (const unsigned char *)"no reply", 8));
        CHECK(send_part(stage.services[n], id, (size_t)id_size, SNDMORE) == id_size);
        CHECK(send_part(stage.services[n], replies.bytes, replies.size, 0) == (int)replies.size);
    }
    for (int n = 0; n < 2; n++)
        for (int call = 0; call < EACH; call++) {
            CHECK(receive_part(clients[n], frame, sizeof frame, 0) == 100);
            CHECK(!(frame_id(frame, 100) & LABEL_BITS) && frame[10] < EACH && answers[n][frame[10]]++ == 0);
        }
    UNTIL(counts_of(&stage).unknown_replies == 2 && counts_of(&stage).malformed_replies == 2);
    for (int n = 0; n < 2; n++)
        socket_close(clients[n]);
    end(&stage, &counts);
    CHECK(counts.calls == 2 * EACH && counts.replies == 2 * EACH && counts.replies_no_client == 0);
}

static void test_malformed_bundles_are_dropped_whole(void) {
    struct stage stage;
    struct relay_counts counts;
    struct bundle bundle = {0};
    unsigned char frame[100], large[BUNDLE_BYTES + 1] = {BUNDLE_MARK, 100};
    begin(&stage, 1, 5000);
    void *client = connected(stage.context, 5000, stage.address, 0);
    for (int n = 0; n < 2; n++) {
        compose(frame, sizeof frame, 0, (uint32_t)n, 60000);
        CHECK(bundle_add(&bundle, frame, sizeof frame));
    }
    uint64_t malformed = 0;
    for (size_t size = 1; size < bundle.size; size++) /* cut anywhere but between the two */
        if (size != 1 + BUNDLE_LENGTH + sizeof frame) {
            CHECK(send_part(client, bundle.bytes, size, 0) == (int)size);
            malformed++;
        }
    CHECK(send_part(client, large, sizeof large, 0) == sizeof large);
    UNTIL(counts_of(&stage).malformed_calls == malformed + 1);
    CHECK(counts_of(&stage).calls == 0);
    bundle.bytes[1 + BUNDLE_LENGTH] = 0; /* the first frame is no call: the second is one all the same */
    CHECK(send_part(client, bundle.bytes, bundle.size, 0) == (int)bundle.size);
    unsigned char id[256];
    int id_size = receive_part(stage.services[0], id, sizeof id, 0);
    CHECK(receive_part(stage.services[0], frame, sizeof frame, 0) == sizeof frame);
    CHECK(send_part(stage.services[0], id, (size_t)id_size, SNDMORE) == id_size);
    CHECK(send_part(stage.services[0], bundle.bytes, bundle.size - 1, 0) == (int)bundle.size - 1);
    CHECK(send_part(stage.services[0], id, (size_t)id_size, SNDMORE) == id_size);
    CHECK(send_part(stage.services[0], frame, sizeof frame, 0) == sizeof frame);
    expect(client, 1, sizeof frame);
    socket_close(client);
    end(&stage, &counts);
    CHECK(counts.malformed_calls == malformed + 2 && counts.malformed_replies == 1 && counts.calls == 1);
}

/* Waits until no call has moved for 50 ms: every queue is full. Returns how many have. */
static uint64_t stand_still(const struct stage *stage) {
    uint64_t calls = 0;
    for (int still = 0; still < 50; still++) {
        if (counts_of(stage).calls != calls) {
            calls = counts_of(stage).calls;
            still = 0;
        }
        poll(NULL, 0, 1);
    }
    return calls;
}

/* The state in which zmq_proxy sits in a blocking send and hears nothing: an instance that does not read. */
static void test_it_ends_while_no_instance_reads_and_nothing_was_lost(void) {
    struct stage stage;
    struct relay_counts counts;
    unsigned char frame[4096];
    begin(&stage, 1, 5);
    void *client = connected(stage.context, 0, stage.address, 0);
    for (uint32_t n = 0; n < 20000; n++)
        call(client, n, 1000);
    uint64_t calls = stand_still(&stage);
    CHECK(calls < 20000);
    for (uint32_t n = 0; n < 20000; n++) { /* it reads again: all come, in order, whole */
        CHECK(receive_part(stage.services[0], frame, sizeof frame, 0) > 0);
        CHECK(receive_part(stage.services[0], frame, sizeof frame, 0) == 1000);
        CHECK((uint32_t)(frame[9] << 8 | frame[10]) == (n & 0xffff));
    }
    for (uint32_t n = 20000; n < 40000; n++) /* full again, for the end */
        call(client, n, 1000);
    CHECK(stand_still(&stage) < 40000);
    socket_close(client);
    end(&stage, &counts);
}

/* A bundle that finds no room is taken back, whole, and goes another time, in order; one that waits ends by its deadline. */
static void test_bundles_that_find_no_room_wait(void) {
    enum { BUNDLES = 4000, EACH = 30, ALL = BUNDLES * EACH };
    struct stage stage;
    struct relay_counts counts;
    unsigned char frame[4096];
    begin(&stage, 1, 1);
    void *client = connected(stage.context, 0, stage.address, 0);
    for (uint32_t n = 0; n < BUNDLES; n++)
        call_together(client, n * EACH, EACH, 250);
    uint64_t calls = stand_still(&stage);
    CHECK(calls < ALL && relay_loop_in_flight(stage.loop, 0) == (int64_t)calls);
    for (uint32_t n = 0; n < ALL; n++) {
        CHECK(receive_part(stage.services[0], frame, sizeof frame, 0) > 0);
        CHECK(receive_part(stage.services[0], frame, sizeof frame, 0) == 250);
        CHECK((frame_id(frame, 250) & 0x7fffffff) == n);
    }
    UNTIL(counts_of(&stage).calls == ALL);
    CHECK(relay_loop_in_flight(stage.loop, 0) == ALL);
    socket_close(client);
    end(&stage, &counts);
    CHECK(counts.malformed_calls == 0 && counts.duplicate_calls == 0 && counts.expired == 0);
}

static void test_a_client_that_does_not_read_holds_up_nobody(void) {
    struct stage stage;
    struct relay_counts counts;
    begin(&stage, 1, 1000);
    void *deaf = connected(stage.context, 2000, stage.address, 0);
    void *client = connected(stage.context, 1000, stage.address, 0);
    uint32_t sent = 0;
    while (counts_of(&stage).replies_no_room == 0) {
        CHECK(sent < 200000);
        call(deaf, sent++, 2000);
        serve(stage.services[0]);
    }
    call(client, 1, 32);
    serve(stage.services[0]);
    expect(client, 1, 32);
    socket_close(deaf);
    socket_close(client);
    end(&stage, &counts);
}

static void test_a_client_that_is_gone_is_counted(void) {
    struct stage stage;
    struct relay_counts counts;
    begin(&stage, 1, 1000);
    void *leaving = connected(stage.context, 1000, stage.address, 0);
    for (uint32_t n = 0; n < 900; n++)
        call(leaving, n, 32);
    UNTIL(counts_of(&stage).calls == 900);
    socket_close(leaving);
    for (uint64_t n = 1; counts_of(&stage).replies_no_client == 0; n++) { /* until its end is seen */
        CHECK(n <= 900);
        serve(stage.services[0]);
        UNTIL(counts_of(&stage).replies + counts_of(&stage).replies_no_client == n);
    }
    end(&stage, &counts);
}

/* --- calls that end without a reply */

/* Waits until something has arrived at a socket. */
static void arrived(void *socket) {
    struct relay_poll item = {.socket = socket, .events = 1};
    CHECK(poll_sockets(&item, 1, 5000) == 1);
}

static void test_calls_of_a_removed_instance_are_lost(bool together) {
    struct stage stage;
    struct relay_counts counts;
    unsigned char told[10] = {0}, frame[64], number;
    begin(&stage, 2, 1000);
    void *client = connected(stage.context, 1000, stage.address, 0);
    if (together)
        call_together(client, 0, 10, 32);
    for (uint32_t n = 0; n < 10 && !together; n++)
        call(client, n, 32);
    UNTIL(counts_of(&stage).calls == 10);
    pause_loop(&stage);
    int64_t waiting = relay_loop_retire(stage.loop, 0);
    if (waiting) {
        serve(stage.services[0]);
        arrived(stage.backs[0]);
    }
    CHECK(relay_loop_remove(stage.loop, 0) == (waiting ? waiting - 1 : 0));
    for (int64_t n = 0; n < waiting; n++) { /* what had arrived comes first, the rest is lost */
        int size = receive_part(client, frame, sizeof frame, 0);
        CHECK(n == 0 ? size == 32 : size == LEAST_FRAME + 9 && memcmp(frame + LEAST_FRAME, "lost zero", 9) == 0);
        CHECK(frame_id(frame, (size_t)size) >> LABEL_SHIFT == UINT64_C(1) << 32);
        told[frame[10]]++;
    }
    if (waiting > 1) /* too late: it was told as lost */
        serve(stage.services[0]);
    CHECK(relay_loop_add(stage.loop, stage.backs[0], "", 0) == 0);
    relay_loop_ready(stage.loop, 0);
    resume(&stage);
    UNTIL(waiting < 2 || counts_of(&stage).unknown_replies == 1);
    for (int64_t n = waiting; n < 10; n++) {
        serve(stage.services[1]);
        CHECK(receive_part(client, frame, sizeof frame, 0) == 32);
        told[frame[10]]++;
    }
    for (number = 0; number < 10; number++)
        CHECK(told[number] == 1);
    CHECK(relay_loop_in_flight(stage.loop, 0) == 0 && relay_loop_in_flight(stage.loop, 1) == 0);
    socket_close(client);
    end(&stage, &counts);
    CHECK(counts.lost == (uint64_t)(waiting > 1 ? waiting - 1 : 0) && counts.replies == 10 - counts.lost);
}

static void test_calls_that_wait_end_by_their_deadline(void) {
    struct stage stage;
    struct relay_counts counts;
    struct relay_limits few = usual;
    few.max_waiting = 4;
    begin_limited(&stage, 0, 1000, few);
    void *client = connected(stage.context, 1000, stage.address, 0);
    int64_t began = now_ms();
    call_for(client, 0, 100, 60000); /* the first in the queue does not hold up the others' ends */
    for (uint32_t n = 1; n < 10; n++)
        call_for(client, n, 2000, n % 2 ? 30 : 60);
    for (int n = 1; n < 10; n++) {
        unsigned char frame[64];
        CHECK(receive_part(client, frame, sizeof frame, 0) == LEAST_FRAME + 7);
        CHECK(memcmp(frame + LEAST_FRAME, "expired", 7) == 0);
    }
    CHECK(now_ms() - began < 2000);
    call_for(client, 10, 32, 0);
    expect_failure(client, 10, "expired");
    char address[64];
    stage.services[0] = listening(stage.context, 1000, address);
    stage.backs[0] = connected(stage.context, 1000, address, 1);
    stage.count = 1;
    pause_loop(&stage);
    CHECK(relay_loop_add(stage.loop, stage.backs[0], "", 0) == 0);
    relay_loop_ready(stage.loop, 0);
    resume(&stage);
    serve(stage.services[0]);
    expect(client, 0, 100);
    call_for(client, 11, 32, 1000000);
    for (uint32_t n = 0; n < 3; n++) /* left waiting or in flight at the end: freed */
        call_for(client, 12 + n, 3000, UINT32_MAX);
    UNTIL(counts_of(&stage).calls == 5);
    socket_close(client);
    end(&stage, &counts);
    CHECK(counts.expired == 10 && counts.replies == 1);
}

static void test_calls_that_nobody_answers_are_forgotten(void) {
    struct stage stage;
    struct relay_counts counts;
    struct relay_limits few = usual;
    few.max_in_flight = 3;
    begin_limited(&stage, 1, 1000, few);
    void *client = connected(stage.context, 1000, stage.address, 0);
    for (uint32_t n = 0; n < 6; n++)
        call_for(client, n, 32, 500);
    UNTIL(counts_of(&stage).calls == 3);
    poll(NULL, 0, 50);
    CHECK(counts_of(&stage).calls == 3); /* there may be three */
    for (uint32_t n = 3; n < 6; n++)
        expect_failure(client, n, "expired");
    UNTIL(counts_of(&stage).unanswered == 3);
    CHECK(relay_loop_in_flight(stage.loop, 0) == 0);
    serve(stage.services[0]);
    UNTIL(counts_of(&stage).unknown_replies == 1);
    call(client, 7, 32);
    serve(stage.services[0]);
    serve(stage.services[0]);
    serve(stage.services[0]);
    expect(client, 7, 32);
    socket_close(client);
    end(&stage, &counts);
    CHECK(counts.calls == 4 && counts.replies == 1 && counts.expired == 3 && counts.unknown_replies == 3);
}

static void test_a_reply_that_nobody_waits_for_reaches_nobody(void) {
    struct stage stage;
    struct relay_counts counts;
    unsigned char id[256], frame[64];
    begin(&stage, 2, 1000);
    void *client = connected(stage.context, 1000, stage.address, 0);
    call(client, 1, 32);
    UNTIL(counts_of(&stage).calls == 1);
    int owner = relay_loop_in_flight(stage.loop, 0) ? 0 : 1, size;
    for (int n = 0; n < 9; n++) /* the client's numbers are its own affair, as long as they differ */
        call(client, 1, 32);
    UNTIL(counts_of(&stage).duplicate_calls == 9);
    CHECK((size = receive_part(stage.services[owner], id, sizeof id, 0)) > 0);
    CHECK(receive_part(stage.services[owner], frame, sizeof frame, 0) == 32);
    call(client, 2, 32); /* equals take turns: it goes to the other, which now knows how the relay is called */
    unsigned char other_id[256], other[64];
    int other_size = receive_part(stage.services[!owner], other_id, sizeof other_id, 0);
    CHECK(receive_part(stage.services[!owner], other, sizeof other, 0) == 32);
    CHECK(send_part(stage.services[!owner], other_id, (size_t)other_size, SNDMORE) == other_size);
    CHECK(send_part(stage.services[!owner], frame, 32, 0) == 32); /* another instance's call */
    UNTIL(counts_of(&stage).unknown_replies == 1);
    for (int n = 0; n < 3; n++) { /* its own, three times */
        CHECK(send_part(stage.services[owner], id, (size_t)size, SNDMORE) == size);
        CHECK(send_part(stage.services[owner], frame, 32, 0) == 32);
    }
    UNTIL(counts_of(&stage).unknown_replies == 3);
    expect(client, 1, 32);
    CHECK(send_part(stage.services[!owner], other_id, (size_t)other_size, SNDMORE) == other_size);
    CHECK(send_part(stage.services[!owner], other, 32, 0) == 32);
    expect(client, 2, 32);
    socket_close(client);
    end(&stage, &counts);
    CHECK(counts.calls == 2 && counts.replies == 2);
}

static void test_retiring_an_instance_waits_for_its_replies(void) {
    struct stage stage;
    struct relay_counts counts;
    begin(&stage, 2, 1000);
    void *client = connected(stage.context, 1000, stage.address, 0);
    for (uint32_t n = 0; n < 10; n++)
        call(client, n, 32);
    UNTIL(counts_of(&stage).calls == 10);
    pause_loop(&stage);
    int64_t waiting = relay_loop_retire(stage.loop, 0);
    CHECK(relay_loop_in_flight(stage.loop, 1) == 10 - waiting);
    CHECK(relay_loop_run(stage.loop, 32) == RELAY_TIMEOUT);
    for (int64_t n = 0; n < waiting; n++)
        serve(stage.services[0]);
    if (waiting)
        CHECK(relay_loop_run(stage.loop, 5000) == RELAY_DRAINED);
    CHECK(relay_loop_remove(stage.loop, 0) == 0);
    CHECK(relay_loop_add(stage.loop, stage.backs[0], "", 0) == 0);
    relay_loop_ready(stage.loop, 0);
    CHECK(relay_loop_flush(stage.loop) == RELAY_WOKEN);
    for (int64_t n = 0; n < 10 - waiting; n++)
        serve(stage.services[1]);
    resume(&stage);
    unsigned char frame[64];
    for (int n = 0; n < 10; n++)
        CHECK(receive_part(client, frame, sizeof frame, 0) == 32);
    socket_close(client);
    end(&stage, &counts);
}

static void test_a_terminated_context_ends_it(int instances) {
    struct stage stage;
    begin(&stage, instances, 10);
    pthread_t helper;
    CHECK(pthread_create(&helper, NULL, (void *(*)(void *))(void *)ctx_term, stage.context) == 0);
    CHECK(pthread_join(stage.thread, NULL) == 0);
    CHECK(stage.outcome == RELAY_TERMINATED);
    relay_loop_free(stage.loop);
    socket_close(stage.front);
    for (int n = 0; n < instances; n++) {
        socket_close(stage.services[n]);
        socket_close(stage.backs[n]);
    }
    CHECK(pthread_join(helper, NULL) == 0);
    close(stage.wake);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    test_in_flight();
    load(arguments[1]);
    test_replies_return_to_their_callers();
    test_garbage_is_dropped_whole();
    test_bundles_of_several_clients_and_instances();
    test_malformed_bundles_are_dropped_whole();
    test_bundles_that_find_no_room_wait();
    test_it_ends_while_no_instance_reads_and_nothing_was_lost();
    test_a_client_that_does_not_read_holds_up_nobody();
    test_a_client_that_is_gone_is_counted();
    test_retiring_an_instance_waits_for_its_replies();
    test_calls_of_a_removed_instance_are_lost(false);
    test_calls_of_a_removed_instance_are_lost(true);
    test_calls_that_wait_end_by_their_deadline();
    test_calls_that_nobody_answers_are_forgotten();
    test_a_reply_that_nobody_waits_for_reaches_nobody();
    test_a_terminated_context_ends_it(1);
    test_a_terminated_context_ends_it(0);
    return 0;
}
