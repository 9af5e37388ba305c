/* Tests of peer_guard.c, under ASan and UBSan: what is judged, at every length, and a real connection over loopback. */
#define _GNU_SOURCE
#include "peer_guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                                                           \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                        \
            exit(1);                                                                                                               \
        }                                                                                                                          \
    } while (0)

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static size_t greeting(uint8_t *at, uint8_t major, const char *mechanism) {
    memset(at, 0, 64);
    at[0] = 0xff;
    at[9] = 0x7f;
    at[10] = major;
    memcpy(at + 12, mechanism, strlen(mechanism));
    return 64;
}

static size_t property(uint8_t *at, const char *name, const char *value, uint32_t size) {
    size_t length = strlen(name);
    at[0] = (uint8_t)length;
    memcpy(at + 1, name, length);
    uint32_t big = htonl(size);
    memcpy(at + 1 + length, &big, 4);
    memcpy(at + 5 + length, value, strnlen(value, size));
    return 5 + length + size;
}

static size_t ready(uint8_t *at, int wide, const char *name, const char *value, uint32_t size) {
    uint8_t body[512] = "\5READY";
    size_t length = 6 + property(body + 6, "Socket-Type", "DEALER", 6);
    length += property(body + length, name, value, size);
    size_t head = wide ? 9 : 2;
    memset(at, 0, head);
    at[0] = wide ? 6 : 4;
    at[head - 1] = (uint8_t)length;
    if (wide)
        at[head - 2] = (uint8_t)(length >> 8);
    memcpy(at + head, body, length);
    return head + length;
}

/* The verdict of the whole; every shorter piece must not say the opposite. Copied, so that ASan sees a read beyond. */
static enum peer_verdict judge(const uint8_t *bytes, size_t count) {
    enum peer_verdict whole = PEER_MORE;
    for (size_t part = 0; part <= count; part++) {
        uint8_t *copy = malloc(part ? part : 1);
        memcpy(copy, bytes, part);
        enum peer_verdict verdict = peer_guard_judge(copy, part);
        free(copy);
        CHECK(whole == PEER_MORE || verdict == whole);
        whole = verdict;
    }
    return whole;
}

static void test_verdicts(void) {
    uint8_t bytes[1024];
    for (int wide = 0; wide < 2; wide++) {
        size_t count = greeting(bytes, 3, "NULL");
        CHECK(judge(bytes, count + ready(bytes + count, wide, "Identity", "", 0)) == PEER_FINE);
        CHECK(judge(bytes, count + ready(bytes + count, wide, "X-Other", "abcde", 5)) == PEER_FINE);
        CHECK(judge(bytes, count + ready(bytes + count, wide, "Identity", "abcde", 5)) == PEER_REFUSED);
        CHECK(judge(bytes, count + ready(bytes + count, wide, "identity", "a", 1)) == PEER_REFUSED);
    }
    size_t count = greeting(bytes, 3, "CURVE");
    CHECK(judge(bytes, count) == PEER_MORE && judge(bytes, count + 2) == PEER_FINE);
    CHECK(judge(bytes, greeting(bytes, 1, "NULL")) == PEER_REFUSED);
    CHECK(judge((const uint8_t *)"\x01\x00", 2) == PEER_REFUSED);
    CHECK(judge((const uint8_t *)"GET / HTTP/1.1\r\n", 16) == PEER_REFUSED);
    count = greeting(bytes, 3, "NULL");
    memset(bytes + count, 0xff, 200); /* a length beyond everything */
    CHECK(judge(bytes, count + 200) == PEER_REFUSED);
    for (int i = 0; i < 20000; i++) { /* a READY of random properties: never a read beyond */
        count = greeting(bytes, 3, "NULL");
        size_t size = ready(bytes + count, 0, "Identity", "ab", 2);
        for (size_t at = count + 8; at < count + size; at++)
            if (rand() % 8 == 0)
                bytes[at] = (uint8_t)rand();
        uint8_t *copy = malloc(count + size);
        memcpy(copy, bytes, count + size);
        peer_guard_judge(copy, count + size);
        free(copy);
    }
}

static int connected(int listener, int *client) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    *client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(*client, (struct sockaddr *)&address, size) == 0);
    return peer_guard_accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

/* A stream of frames, cut into pieces of every size, is followed the same. */
static void test_frames(void) {
    static uint8_t stream[200000];
    size_t size = greeting(stream, 3, "NULL");
    size += ready(stream + size, 1, "Identity", "", 0);
    for (int n = 0; n < 300; n++) { /* messages of one frame, short and long, and commands */
        size_t body = (size_t)n % 5 ? 20 : 300;
        stream[size] = (uint8_t)(n % 7 == 0 ? 4 : 0) | (body > 255 ? 2 : 0);
        memset(stream + size + 1, 0, 8);
        size_t head = body > 255 ? 9 : 2;
        stream[size + head - 1] = (uint8_t)body;
        if (body > 255)
            stream[size + head - 2] = (uint8_t)(body >> 8);
        memset(stream + size + head, 1, body); /* each byte looks like one more frame, if the count is lost */
        size += head + body;
    }
    for (int n = 0; n < 64; n++) { /* 64 frames before the last one are let pass, with commands between them */
        memcpy(stream + size, "\1\0\4\0", 4);
        size += 4;
    }
    memcpy(stream + size, "\0\0", 2);
    size += 2;
    for (size_t piece = 1; piece < 400; piece++) {
        struct peer_frames frames = {0};
        for (size_t at = 0; at < size; at += piece)
            CHECK(peer_guard_follow(&frames, stream + at, piece < size - at ? piece : size - at) == PEER_MORE);
        for (int n = 0; n < 64; n++)
            CHECK(peer_guard_follow(&frames, (const uint8_t *)"\1\0", 2) == PEER_MORE);
        CHECK(peer_guard_follow(&frames, (const uint8_t *)"\1\0", 2) == PEER_REFUSED);
    }
    struct peer_frames frames = {0};
    CHECK(peer_guard_follow(&frames, stream, 64) == PEER_MORE);
    CHECK(peer_guard_follow(&frames, (const uint8_t *)"\3\0\0\0\0\0\x20\0\0", 9) == PEER_REFUSED); /* 2 MiB before the last */
    frames = (struct peer_frames){0};
    CHECK(peer_guard_follow(&frames, stream, 64) == PEER_MORE);
    CHECK(peer_guard_follow(&frames, (const uint8_t *)"\2\0\0\0\0\0\x20\0\0", 9) == PEER_MORE); /* a large message of one frame */
}

static void test_connections(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), client;
    CHECK(listen(listener, 10) == 0);
    uint8_t bytes[1024], seen[1024];
    size_t count = greeting(bytes, 3, "NULL");
    count += ready(bytes + count, 0, "Identity", "abcde", 5);
    int server = connected(listener, &client); /* not guarded: all passes */
    CHECK(write(client, bytes, count) == (ssize_t)count);
    CHECK(peer_guard_recv(server, seen, sizeof seen, 0) == (ssize_t)count && memcmp(seen, bytes, count) == 0);
    close(client);
    peer_guard_close(server);

    peer_guard_listener(listener, 1);
    server = connected(listener, &client);
    CHECK(write(client, bytes, count) == (ssize_t)count);
    CHECK(peer_guard_recv(server, seen, 64, MSG_WAITALL) == 64);
    CHECK(peer_guard_recv(server, seen, sizeof seen, 0) == 0 && peer_guard_refused() == 1);
    close(client);
    peer_guard_close(server);

    count = greeting(bytes, 3, "NULL");
    count += ready(bytes + count, 0, "Identity", "", 0);
    server = connected(listener, &client);
    CHECK(write(client, bytes, count) == (ssize_t)count);
    CHECK(peer_guard_recv(server, seen, sizeof seen, 0) == (ssize_t)count);
    CHECK(write(client, "GET", 3) == 3 && peer_guard_recv(server, seen, sizeof seen, 0) == 3); /* judged once */
    close(client);
    CHECK(peer_guard_recv(server, seen, sizeof seen, 0) == 0);
    peer_guard_close(server);

    server = connected(listener, &client); /* closed in mid-handshake: the number's next user is not judged */
    peer_guard_close(server);
    close(client);

    struct rlimit limit, none;
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, size) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = (struct rlimit){3, limit.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    double began = now_s();
    for (int i = 0; i < 20; i++)
        CHECK(peer_guard_accept4(listener, NULL, NULL, 0) == -1 && errno == ECONNABORTED);
    CHECK(now_s() - began >= 0.02); /* it does not spin */
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    close(client);
    peer_guard_close(listener);
}

static uint32_t told(int epoll) {
    struct epoll_event event = {0};
    return peer_guard_epoll_wait(epoll, &event, 1, 0) == 1 ? event.events : 0;
}

/* As libzmq's poller calls it: added with nothing, then changed. */
static void test_stopped_input(void) {
    int client, listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    CHECK(listen(listener, 10) == 0);
    peer_guard_listener(listener, 1);
    int server = connected(listener, &client);
    struct epoll_event nothing = {0}, in = {.events = EPOLLIN}, out = {.events = EPOLLOUT}, both = {.events = EPOLLIN | EPOLLOUT};
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_ADD, server, &nothing) == 0);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &out) == 0 && told(epoll) == EPOLLOUT); /* before it was ever read */
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &in) == 0 && told(epoll) == 0);
    CHECK(write(client, "x", 1) == 1 && told(epoll) == EPOLLIN);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &nothing) == 0 && told(epoll) == 0);
    CHECK(setsockopt(client, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)) == 0);
    close(client);
    CHECK(told(epoll) == 0); /* its end is not told */
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &nothing) == 0 && told(epoll) == 0);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &out) == 0 && told(epoll) == EPOLLOUT); /* to fail, and to stop */
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &nothing) == 0 && told(epoll) == 0);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &both) == 0 && told(epoll) == (EPOLLIN | EPOLLOUT));
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &out) == 0 && told(epoll) == EPOLLOUT);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &in) == 0 && told(epoll) == EPOLLIN);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, server, &nothing) == 0 && told(epoll) == 0);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_DEL, server, &nothing) == 0); /* while it is not there */
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_ADD, server, &nothing) == 0);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_DEL, server, &nothing) == 0);
    peer_guard_close(server);
    int ends[2]; /* not accepted: as ever, but that what is to be read comes first */
    CHECK(pipe(ends) == 0 && peer_guard_epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &in) == 0 && write(ends[1], "x", 1) == 1);
    close(ends[1]);
    CHECK(told(epoll) == EPOLLIN);
    CHECK(peer_guard_epoll_ctl(epoll, EPOLL_CTL_MOD, ends[0], &nothing) == 0 && told(epoll) == EPOLLHUP);
    close(ends[0]);
    close(epoll);
    peer_guard_close(listener);
}

int main(void) {
    test_verdicts();
    test_frames();
    test_connections();
    test_stopped_input();
    puts("peer guard: ok");
    return 0;
}
