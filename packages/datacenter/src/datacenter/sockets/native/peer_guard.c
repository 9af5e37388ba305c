/* See peer_guard.h. A connection is judged until its READY has been seen, and its frames are followed as long as it lives, if it is
 * not encrypted: a few nanoseconds a frame. */
#define _GNU_SOURCE
#include "peer_guard.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
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

#define MOST_FRAMES 64
#define MOST_BYTES (1 << 20)

struct watch {
    struct peer_frames frames;
    bool judged; /* `bytes` is not there any more */
    size_t count;
    uint8_t bytes[LONGEST];
};

/* By descriptor. A connection's entry is used by the one thread that reads it; accept and close are ordered with it by libzmq. */
static _Atomic(struct watch *) watched[NUMBERS];
static atomic_bool guarded[NUMBERS];
static atomic_uint_least64_t refused;
static atomic_int bound; /* numbers from it on were never watched nor guarded */

/* Of a connection that a guarded listener has accepted: whether libzmq waits for what it sends. Changed by its I/O thread. */
enum input { NOT_OURS, NOT_BEGUN, WAITED_FOR, STOPPED, STOPPED_WRITING }; /* STOPPED: epoll does not have it */
static _Atomic uint8_t inputs[NUMBERS];
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

static bool is_null(const uint8_t *bytes) {
    return memcmp(bytes + MECHANISM, "NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20) == 0;
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
    if (!is_null(bytes))
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

enum peer_verdict peer_guard_follow(struct peer_frames *frames, const uint8_t *bytes, size_t count) {
    if (!frames->begun) {
        frames->begun = 1;
        frames->skip = GREETING;
    }
    while (count) {
        if (frames->skip) {
            size_t part = count < frames->skip ? count : (size_t)frames->skip;
            frames->skip -= part;
            bytes += part;
            count -= part;
            continue;
        }
        frames->head[frames->have++] = *bytes++;
        count--;
        size_t wanted = frames->head[0] & 2 ? 9 : 2;
        if (frames->have < wanted)
            continue;
        uint64_t size = 0;
        for (size_t n = 1; n < wanted; n++)
            size = size << 8 | frames->head[n];
        frames->have = 0;
        frames->skip = size;
        if (!(frames->head[0] & 1)) {
            if (!(frames->head[0] & 4)) { /* a command may come in the middle of a message */
                frames->frames = 0;
                frames->bytes = 0;
            }
            continue;
        }
        frames->frames++;
        frames->bytes = size > MOST_BYTES ? MOST_BYTES + 1 : frames->bytes + size;
        if (frames->frames > MOST_FRAMES || frames->bytes > MOST_BYTES)
            return PEER_REFUSED;
    }
    return PEER_MORE;
}

/* The mechanism is known: NULL, whose frames can be read; the rest of the watch is needed no more. */
static void keep_following(int number, struct watch *watch) {
    watch->judged = true;
    struct watch *smaller = realloc(watch, offsetof(struct watch, count));
    atomic_store(&watched[number], smaller ? smaller : watch);
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
        atomic_store(&inputs[number], NOT_OURS);
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
    watch->judged = false;
    watch->frames = (struct peer_frames){0};
    reach(number);
    atomic_store(&watched[number], watch);
    atomic_store(&inputs[number], NOT_BEGUN);
    return number;
}

int peer_guard_epoll_ctl(int epoll, int operation, int number, struct epoll_event *event) {
    const enum input input = in_range(number) ? atomic_load(&inputs[number]) : NOT_OURS;
    if (input == NOT_OURS)
        return epoll_ctl(epoll, operation, number, event);
    const bool stopped = input == STOPPED;
    if (operation == EPOLL_CTL_DEL) {
        atomic_store(&inputs[number], NOT_BEGUN);
        return stopped ? 0 : epoll_ctl(epoll, operation, number, event);
    }
    if (event->events & EPOLLIN) {
        atomic_store(&inputs[number], WAITED_FOR);
        return epoll_ctl(epoll, stopped ? EPOLL_CTL_ADD : operation, number, event);
    }
    if (input == NOT_BEGUN)
        return epoll_ctl(epoll, operation, number, event);
    if (event->events & EPOLLOUT) {
        atomic_store(&inputs[number], STOPPED_WRITING);
        return epoll_ctl(epoll, stopped ? EPOLL_CTL_ADD : operation, number, event);
    }
    atomic_store(&inputs[number], STOPPED);
    return stopped ? 0 : epoll_ctl(epoll, EPOLL_CTL_DEL, number, event);
}

ssize_t peer_guard_recv(int number, void *buffer, size_t size, int flags) {
    ssize_t got = recv(number, buffer, size, flags);
    struct watch *watch = in_range(number) ? atomic_load_explicit(&watched[number], memory_order_acquire) : NULL;
    if (!watch || got <= 0)
        return got;
    enum peer_verdict verdict = peer_guard_follow(&watch->frames, buffer, (size_t)got);
    if (verdict != PEER_REFUSED && !watch->judged) {
        size_t room = sizeof watch->bytes - watch->count;
        size_t taken = (size_t)got < room ? (size_t)got : room;
        memcpy(watch->bytes + watch->count, buffer, taken);
        watch->count += taken;
        verdict = peer_guard_judge(watch->bytes, watch->count);
        if (verdict == PEER_FINE && !is_null(watch->bytes))
            forget(number);
        else if (verdict == PEER_FINE)
            keep_following(number, watch);
    }
    if (verdict != PEER_REFUSED)
        return got;
    atomic_fetch_add(&refused, 1);
    if (!watch->judged)
        watch->count = 0;
    return 0; /* the end of the connection: libzmq closes it */
}

int peer_guard_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout_ms) {
    int count = epoll_wait(epoll, events, most, timeout_ms);
    for (int i = 0; i < count; i++)
        if (events[i].events & (EPOLLIN | EPOLLOUT))
            events[i].events &= ~(uint32_t)(EPOLLHUP | EPOLLERR);
    return count;
}

int peer_guard_close(int number) {
    forget(number);
    if (in_range(number)) {
        atomic_store(&guarded[number], false);
        atomic_store(&inputs[number], NOT_OURS);
    }
    return atomic_load(&peer_guard_next_close)(number);
}
