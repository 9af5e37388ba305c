/* See peer_guard.h. A connection is watched until its READY has been seen; after that recv costs one look at a table. */
#define _GNU_SOURCE
#include "peer_guard.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum {
    NUMBERS = 1 << 20, /* untouched pages cost nothing */
    GREETING = 64,     /* ZMTP 3.x: signature 10, version 2, mechanism 20, as-server 1, filler 31 */
    MECHANISM = 12,
    LONGEST = GREETING + 9 + 4096, /* a READY beyond that is none of libzmq's */
    PAUSE_NS = 1000000
};

struct watch {
    size_t count;
    uint8_t bytes[LONGEST];
};

/* By descriptor. A connection's entry is used by the one thread that reads it; accept and close are ordered with it by libzmq. */
static _Atomic(struct watch *) watched[NUMBERS];
static atomic_bool guarded[NUMBERS];
static atomic_uint_least64_t refused;
static atomic_int bound; /* numbers from it on were never watched nor guarded */
int (*_Atomic peer_guard_next_accept4)(int, struct sockaddr *, socklen_t *, int) = accept4;
int (*_Atomic peer_guard_next_close)(int) = close;

static bool in_range(int number) { return number >= 0 && number < NUMBERS; }

static void reach(int number) {
    int before = atomic_load(&bound);
    while (before <= number && !atomic_compare_exchange_weak(&bound, &before, number + 1))
        ;
}

static void forget(int number) {
    if (in_range(number))
        free(atomic_exchange(&watched[number], NULL));
}

/* Body of a command: READY, then properties: length 1, name, length 4, value. What is malformed is left for libzmq to refuse. */
static enum peer_verdict judge_ready(const uint8_t *body, size_t size) {
    static const char identity[] = "Identity";
    if (size < 6 || memcmp(body, "\5READY", 6) != 0)
        return PEER_FINE;
    for (size_t at = 6; at < size;) {
        const uint8_t *name = body + at + 1;
        size_t name_size = body[at];
        at += 1 + name_size;
        if (at + 4 > size)
            break;
        size_t value_size = (size_t)body[at] << 24 | (size_t)body[at + 1] << 16 | (size_t)body[at + 2] << 8 | body[at + 3];
        if (name_size == sizeof identity - 1 && strncasecmp((const char *)name, identity, name_size) == 0 && value_size > 0)
            return PEER_REFUSED;
        at += 4 + value_size;
    }
    return PEER_FINE;
}

enum peer_verdict peer_guard_judge(const uint8_t *bytes, size_t count) {
    if (count >= 1 && bytes[0] != 0xff)
        return PEER_REFUSED; /* ZMTP 1.0, or nothing that libzmq knows */
    if (count >= 10 && !(bytes[9] & 1))
        return PEER_REFUSED; /* ZMTP 1.0 as well */
    if (count >= 11 && bytes[10] < 3)
        return PEER_REFUSED;
    if (count < GREETING + 2)
        return PEER_MORE;
    if (memcmp(bytes + MECHANISM, "NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20) != 0)
        return PEER_FINE;
    bool wide = bytes[GREETING] & 2; /* a length of eight bytes; whether it calls itself a command, libzmq does not ask */
    size_t head = wide ? 9 : 2, size = 0;
    if (count < GREETING + head)
        return PEER_MORE;
    for (size_t i = 1; i < head; i++) {
        if (size > LONGEST)
            return PEER_REFUSED;
        size = size << 8 | bytes[GREETING + i];
    }
    if (size > LONGEST - GREETING - head)
        return PEER_REFUSED;
    return count < GREETING + head + size ? PEER_MORE : judge_ready(bytes + GREETING + head, size);
}

void peer_guard_listener(int number, int on) {
    if (!in_range(number))
        return;
    reach(number);
    atomic_store(&guarded[number], on != 0);
}

void peer_guard_begin_in_child(void) {
    for (int number = atomic_load(&bound); number-- > 0;) {
        forget(number);
        atomic_store(&guarded[number], false);
    }
}

uint64_t peer_guard_refused(void) { return atomic_load(&refused); }

int peer_guard_accept4(int listener, struct sockaddr *address, socklen_t *length, int flags) {
    int number = atomic_load(&peer_guard_next_accept4)(listener, address, length, flags);
    if (number < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
            errno = ECONNABORTED;
        }
        return number;
    }
    forget(number);
    if (!in_range(listener) || !atomic_load(&guarded[listener]))
        return number;
    struct watch *watch = in_range(number) ? malloc(sizeof *watch) : NULL;
    if (!watch) { /* what cannot be judged is not let in */
        atomic_load(&peer_guard_next_close)(number);
        errno = ECONNABORTED;
        return -1;
    }
    watch->count = 0;
    reach(number);
    atomic_store(&watched[number], watch);
    return number;
}

ssize_t peer_guard_recv(int number, void *buffer, size_t size, int flags) {
    ssize_t got = recv(number, buffer, size, flags);
    struct watch *watch = in_range(number) ? atomic_load_explicit(&watched[number], memory_order_acquire) : NULL;
    if (!watch || got <= 0)
        return got;
    size_t room = sizeof watch->bytes - watch->count;
    size_t taken = (size_t)got < room ? (size_t)got : room;
    memcpy(watch->bytes + watch->count, buffer, taken);
    watch->count += taken;
    switch (peer_guard_judge(watch->bytes, watch->count)) {
    case PEER_MORE:
        return got;
    case PEER_FINE:
        forget(number);
        return got;
    case PEER_REFUSED:
        break;
    }
    atomic_fetch_add(&refused, 1);
    watch->count = 0;
    return 0; /* the end of the connection: libzmq closes it */
}

int peer_guard_close(int number) {
    forget(number);
    if (in_range(number))
        atomic_store(&guarded[number], false);
    return atomic_load(&peer_guard_next_close)(number);
}
