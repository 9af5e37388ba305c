/* Batches against the real libzmq: order, sizes, garbage, refusals, and the end of the context.
 * usage: tests LIBZMQ */
#define _GNU_SOURCE
#include "batch.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition)                                                                                                           \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: not true: %s (errno: %s)\n", __FILE__, __LINE__, #condition, strerror(errno));                 \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

enum { DEALER = 5, ROUTER = 6, LINGER = 17, SNDHWM = 23, RCVHWM = 24, LAST_ENDPOINT = 32, MANDATORY = 33, SNDMORE = 2, ETERM_ = 156384765 };

/* libzmq's functions that only the tests need */
static void *(*ctx_new)(void);
static int (*ctx_shutdown)(void *);
static int (*ctx_term)(void *);
static void *(*socket_new)(void *, int);
static int (*socket_close)(void *);
static int (*set)(void *, int, const void *, size_t);
static int (*get)(void *, int, void *, size_t *);
static int (*bind_to)(void *, const char *);
static int (*connect_to)(void *, const char *);
static int (*send_part)(void *, const void *, size_t, int);
static int (*receive_raw)(void *, void *, size_t, int);
static void *functions[32]; /* what a batch needs */

static void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    CHECK(library);
#define FIND(into, name) CHECK((*(void **)&into = dlsym(library, name)))
    FIND(ctx_new, "zmq_ctx_new");
    FIND(ctx_shutdown, "zmq_ctx_shutdown");
    FIND(ctx_term, "zmq_ctx_term");
    FIND(socket_new, "zmq_socket");
    FIND(socket_close, "zmq_close");
    FIND(set, "zmq_setsockopt");
    FIND(get, "zmq_getsockopt");
    FIND(bind_to, "zmq_bind");
    FIND(connect_to, "zmq_connect");
    FIND(send_part, "zmq_send");
    FIND(receive_raw, "zmq_recv");
    for (unsigned n = 0; batch_function_name(n); n++)
        FIND(functions[n], batch_function_name(n));
}

static int bundles; /* whether frames travel together */

/* A connected pair: `server` is a ROUTER at a free port, `client` a DEALER, each with its batch. */
struct pair {
    void *context, *server, *client;
    struct batch *at_server, *at_client;
};

static void with_option(void *socket, int option, int value) { CHECK(set(socket, option, &value, sizeof value) == 0); }

static struct pair make(int high_water) {
    struct pair pair = {.context = ctx_new()};
    CHECK((pair.server = socket_new(pair.context, ROUTER)));
    CHECK((pair.client = socket_new(pair.context, DEALER)));
    for (int n = 0; n < 2; n++) {
        void *socket = n ? pair.client : pair.server;
        with_option(socket, LINGER, 0);
        with_option(socket, SNDHWM, high_water);
        with_option(socket, RCVHWM, high_water);
    }
    with_option(pair.server, MANDATORY, 1);
    char endpoint[64];
    size_t size = sizeof endpoint;
    CHECK(bind_to(pair.server, "inproc://pair") == 0);
    CHECK(get(pair.server, LAST_ENDPOINT, endpoint, &size) == 0);
    CHECK(connect_to(pair.client, endpoint) == 0);
    CHECK((pair.at_server = batch_make(functions, pair.server, 1, bundles)));
    CHECK((pair.at_client = batch_make(functions, pair.client, 0, bundles)));
    return pair;
}

static void end(struct pair *pair) {
    batch_free(pair->at_server);
    batch_free(pair->at_client);
    socket_close(pair->server);
    socket_close(pair->client);
    CHECK(ctx_term(pair->context) == 0);
}

/* Receives until there is a message; bounded. */
static int receive(struct batch *batch) {
    for (int n = 0; n < 10000; n++) {
        int count = batch_receive(batch);
        if (count)
            return count;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    CHECK(!"a message came");
    return 0;
}

static void test_many_messages_keep_their_order_and_go_back_to_their_sender(void) {
    struct pair pair = make(100000);
    enum { MANY = 1000 };
    for (int first = 0; first < MANY; first += BATCH_MOST) {
        uint32_t numbers[BATCH_MOST], ends[BATCH_MOST];
        int32_t outcomes[BATCH_MOST];
        for (int n = 0; n < BATCH_MOST; n++) {
            numbers[n] = (uint32_t)(first + n) << 8; /* none begins like a bundle */
            ends[n] = 4 * ((uint32_t)n + 1);
        }
        CHECK(batch_send(pair.at_client, (void *)numbers, ends, BATCH_MOST, outcomes) == 0);
    }
    unsigned char reply[512];
    uint32_t expected = 0;
    while (expected < MANY) {
        int count = receive(pair.at_server);
        for (int n = 0; n < count; n++) {
            struct batch_span span = pair.at_server->spans[n];
            uint32_t number;
            CHECK(span.end - span.frame == 4 && span.frame - span.id == 5);
            memcpy(&number, pair.at_server->bytes + span.frame, 4);
            CHECK(number >> 8 == expected++);
            if (expected == MANY)
                memcpy(reply, pair.at_server->bytes + span.id, 9);
        }
    }
    CHECK(batch_receive(pair.at_server) == 0 && pair.at_server->all);
    int32_t outcome;
    CHECK(batch_send(pair.at_server, reply, (uint32_t[]){5, 9}, 1, &outcome) == 0);
    CHECK(receive(pair.at_client) == 1);
    CHECK(memcmp(pair.at_client->bytes, reply + 5, 4) == 0);
    end(&pair);
}

static void test_a_large_message_comes_alone_and_its_neighbours_too(void) {
    struct pair pair = make(1000);
    size_t large = 3 * BATCH_BYTES;
    unsigned char *payload = calloc(1, large);
    memset(payload, 7, large);
    CHECK(send_part(pair.client, "a", 1, 0) == 1);
    CHECK(send_part(pair.client, payload, large, 0) == (int)large);
    CHECK(send_part(pair.client, "", 0, 0) == 0);
    size_t sizes[3];
    for (int have = 0; have < 3;) {
        int count = receive(pair.at_server);
        for (int n = 0; n < count; n++, have++) {
            struct batch_span span = pair.at_server->spans[n];
            sizes[have] = span.end - span.frame;
            if (sizes[have] == large)
                CHECK(memcmp(pair.at_server->bytes + span.frame, payload, large) == 0);
        }
    }
    CHECK(sizes[0] == 1 && sizes[1] == large && sizes[2] == 0);
    CHECK(send_part(pair.client, payload, large, 0) == (int)large); /* also as the first of its batch */
    CHECK(batch_receive(pair.at_server) == 1 && pair.at_server->all);
    CHECK(send_part(pair.client, payload, large, 0) == (int)large); /* one that is read and not handed out is freed */
    CHECK(send_part(pair.client, "b", 1, 0) == 1);
    receive(pair.at_server);
    free(payload);
    end(&pair);
}

static void test_messages_of_other_numbers_of_frames_are_dropped_whole(void) {
    struct pair pair = make(1000);
    CHECK(send_part(pair.client, "a", 1, SNDMORE) == 1);
    CHECK(send_part(pair.client, "b", 1, SNDMORE) == 1);
    CHECK(send_part(pair.client, "c", 1, 0) == 1);
    CHECK(send_part(pair.client, "good", 4, 0) == 4);
    CHECK(receive(pair.at_server) == 2);
    CHECK(pair.at_server->malformed == 1 && pair.at_server->spans[0].end == BATCH_MALFORMED);
    CHECK(pair.at_server->spans[0].frame - pair.at_server->spans[0].id == 5);
    struct batch_span good = pair.at_server->spans[1];
    CHECK(good.end - good.frame == 4 && memcmp(pair.at_server->bytes + good.frame, "good", 4) == 0);
    end(&pair);
}

static void test_what_finds_no_room_is_told(void) {
    struct pair pair = make(5);
    unsigned char bytes[50] = {0};
    uint32_t ends[50];
    int32_t outcomes[50];
    for (uint32_t n = 0; n < 50; n++)
        ends[n] = n + 1;
    int refused = batch_send(pair.at_client, bytes, ends, 50, outcomes);
    while (bundles && !refused) /* a bundle counts as one */
        refused = batch_send(pair.at_client, bytes, ends, 50, outcomes);
    CHECK(refused > 0 && refused <= 50 && (bundles || refused < 50));
    for (int n = 0; n < 50; n++)
        CHECK(outcomes[n] == (n < 50 - refused ? 0 : EAGAIN)); /* the first ones were sent, in order */
    unsigned char nobody[] = "\0abcdreply";
    CHECK(batch_send(pair.at_server, nobody, (uint32_t[]){5, 10}, 1, outcomes) == 1);
    CHECK(outcomes[0] == EHOSTUNREACH);
    end(&pair);
}

static void test_the_end_of_the_context_is_an_error(void) {
    struct pair pair = make(5);
    CHECK(ctx_shutdown(pair.context) == 0);
    CHECK(batch_receive(pair.at_server) == -ETERM_);
    int32_t outcome;
    CHECK(batch_send(pair.at_client, (const unsigned char *)"a", (uint32_t[]){1}, 1, &outcome) == 1 && outcome == ETERM_);
    end(&pair);
}

/* In memory of just their size, so that ASan sees who reads beyond. */
static void test_any_bytes_are_split_or_refused(void) {
    unsigned seed = 1;
    int good = 0;
    for (int n = 0; n < 200000; n++) {
        size_t size = (size_t)rand_r(&seed) % 60, at = 0, frame_size, sum = 1;
        unsigned char *message = malloc(size ? size : 1);
        for (size_t k = 0; k < size; k++)
            message[k] = (unsigned char)(rand_r(&seed) % 16 ? (k - 1) % 5 || rand_r(&seed) % 8 == 0 ? 0 : 1 : rand_r(&seed));
        if (size)
            message[0] = BUNDLE_MARK;
        unsigned frames = bundle_frames(message, size);
        for (unsigned k = 0; size && k < frames; k++) {
            const unsigned char *frame = bundle_next(message, size, &at, &frame_size);
            CHECK(frame_size > 0 && frame[0] != BUNDLE_MARK && frame + frame_size <= message + size);
            sum += BUNDLE_LENGTH + frame_size;
        }
        CHECK(!size || !frames || sum == size);
        good += size && frames;
        free(message);
    }
    CHECK(good > 1000);
}

static struct bundle full_of(unsigned char byte) {
    struct bundle bundle = {0};
    unsigned char frame[100];
    memset(frame, byte, sizeof frame);
    for (int n = 0; n < BUNDLE_FRAMES; n++) {
        frame[1] = (unsigned char)n;
        CHECK(bundle_add(&bundle, frame, sizeof frame));
    }
    CHECK(!bundle_add(&bundle, frame, sizeof frame));
    return bundle;
}

static void test_bundles_are_handed_out_frame_by_frame(void) {
    struct pair pair = make(1000);
    enum { MANY = 40 };
    for (int n = 0; n < MANY; n++) { /* more than a call's bytes: one is held */
        struct bundle bundle = full_of((unsigned char)n);
        CHECK(send_part(pair.client, bundle.bytes, bundle.size, 0) == (int)bundle.size);
        CHECK(send_part(pair.client, bundle.bytes, bundle.size - 1, 0) == (int)bundle.size - 1); /* cut: malformed */
    }
    int frames = 0, malformed = 0;
    while (frames < MANY * BUNDLE_FRAMES || malformed < MANY) {
        int count = receive(pair.at_server);
        CHECK(count < BATCH_MOST + BUNDLE_FRAMES);
        for (int n = 0; n < count; n++) {
            struct batch_span span = pair.at_server->spans[n];
            CHECK(span.frame - span.id == 5);
            if (span.end == BATCH_MALFORMED) {
                CHECK(++malformed == frames / BUNDLE_FRAMES);
                continue;
            }
            const unsigned char *frame = pair.at_server->bytes + span.frame;
            CHECK(span.end - span.frame == 100);
            CHECK(frame[0] == frames / BUNDLE_FRAMES && frame[1] == frames % BUNDLE_FRAMES);
            frames++;
        }
    }
    struct bundle last = full_of(1);
    CHECK(send_part(pair.client, last.bytes, last.size, 0) == (int)last.size); /* one that is not handed out is freed */
    end(&pair);
}

enum { REPLY = 11, ENTRY = 5 + REPLY }; /* a reply after its routing id */

/* 100 replies, of each six the last for nobody: to calls of a client that knows bundles, or to small ids. */
static int send_replies(struct pair *pair, unsigned char first_of_id, int32_t outcomes[100]) {
    static unsigned char bytes[100 * ENTRY];
    uint32_t ends[200];
    for (uint32_t n = 0; n < 100; n++) {
        unsigned char *entry = bytes + ENTRY * n;
        memcpy(entry, pair->at_server->bytes, 5);
        entry[4] ^= n % 6 == 5;
        memcpy(entry + 5, (unsigned char[REPLY]){0x93, 1, 0xcf, first_of_id, 0, 0, 0, 0, 0, 0, (unsigned char)n}, REPLY);
        ends[2 * n] = ENTRY * n + 5;
        ends[2 * n + 1] = ENTRY * (n + 1);
    }
    return batch_send(pair->at_server, bytes, ends, 100, outcomes);
}

static void test_a_run_for_one_peer_travels_as_one(void) {
    struct pair pair = make(1000);
    CHECK(send_part(pair.client, "hello", 5, 0) == 5);
    CHECK(receive(pair.at_server) == 1);
    int32_t outcomes[100];
    CHECK(send_replies(&pair, 0x80, outcomes) == 16);
    for (int n = 0; n < 100; n++)
        CHECK(outcomes[n] == (n % 6 == 5 ? EHOSTUNREACH : 0));
    unsigned char message[128];
    for (int n = 0; n < 100; n += 6) {
        unsigned frames = n < 96 ? 5 : 4;
        size_t size = 1 + frames * (4 + REPLY), at = 0, frame_size;
        CHECK(receive_raw(pair.client, message, sizeof message, 0) == (int)size && bundle_frames(message, size) == frames);
        for (unsigned k = 0; k < frames; k++)
            CHECK(bundle_next(message, size, &at, &frame_size)[REPLY - 1] == (unsigned)n + k && frame_size == REPLY);
    }
    end(&pair);
}

static void test_a_peer_that_does_not_know_bundles_gets_none(void) {
    struct pair pair = make(1000);
    CHECK(send_part(pair.client, "hello", 5, 0) == 5);
    CHECK(receive(pair.at_server) == 1);
    int32_t outcomes[100];
    CHECK(send_replies(&pair, 0x00, outcomes) == 16);
    unsigned char message[128];
    for (int n = 0; n < 100; n++)
        if (n % 6 != 5)
            CHECK(receive_raw(pair.client, message, sizeof message, 0) == REPLY && message[REPLY - 1] == n);
    end(&pair);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    load(arguments[1]);
    for (bundles = 0; bundles < 2; bundles++) {
        test_many_messages_keep_their_order_and_go_back_to_their_sender();
        test_a_large_message_comes_alone_and_its_neighbours_too();
        test_messages_of_other_numbers_of_frames_are_dropped_whole();
        test_what_finds_no_room_is_told();
        test_the_end_of_the_context_is_an_error();
    }
    bundles = 1;
    test_any_bytes_are_split_or_refused();
    test_bundles_are_handed_out_frame_by_frame();
    test_a_run_for_one_peer_travels_as_one();
    test_a_peer_that_does_not_know_bundles_gets_none();
    return 0;
}
