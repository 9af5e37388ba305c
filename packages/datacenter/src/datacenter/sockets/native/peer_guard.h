/* What peers could abort libzmq 4.3.5 with, kept from it: functions that stand in its import table (sockets/peer_guard.py).
 *
 * 1. A ROUTER gives each peer without a routing id one of five bytes, 0 and a counter, and asserts that nobody has it
 *    (socket_base.cpp:2113, routing_socket_base_t::add_out_pipe). A peer may claim any id, also one that comes next: the next
 *    peer without an id is then the end of the process. So a connection that a guarded listener has accepted and that claims
 *    an id ends: libzmq reads its end of file. Ids are claimed in the READY of the NULL mechanism, or in ZMTP before 3.0, which
 *    is refused whole. With CURVE the id is in what only the holder of a key can write.
 *    A message of endlessly many frames is stored frame by frame, and counts as none until its last one: so a peer could take all
 *    memory. No message of ours has more than one frame; a connection with one of MOST_FRAMES or MOST_BYTES before its last ends.
 * 2. An IPC listener aborts when accept fails with EMFILE or ENOMEM (ipc_listener.cpp:376): it gets ECONNABORTED instead.
 * 3. A listener that gets no descriptor tries again at once, for as long as the connection waits: 125 000 times a second, until
 *    admission switches it off. So each such failure costs its I/O thread a millisecond; in between it serves what is open.
 * 4. A connection whose messages are not taken (the high-water mark) is not read any more, yet epoll still tells of its end. libzmq then
 *    drops the descriptor, keeps the connection, and aborts as it writes to it: at its next heartbeat, or when it answers a heartbeat that
 *    it had read before (stream_engine_base.cpp:310, timer_event and process_heartbeat_message). So such a connection leaves epoll until
 *    it is read again, or something waits to be written. And libzmq reads first where epoll tells of an end beside anything else, perhaps
 *    when nothing may be read any more: it is told of an end where there is nothing to read or write.
 *
 * Any thread may call anything here, as libzmq calls what it imports. */
#ifndef DATACENTER_PEER_GUARD_H
#define DATACENTER_PEER_GUARD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

enum peer_verdict { PEER_MORE, PEER_FINE, PEER_REFUSED };

/* Judges what a peer has sent so far, from its first byte on. PEER_MORE: not enough yet to know. */
enum peer_verdict peer_guard_judge(const uint8_t *bytes, size_t count);

/* Where a peer is in its stream of frames, after its greeting. Zeroed at first. */
struct peer_frames {
    uint64_t skip;  /* of the present frame's body, still to come */
    uint8_t head[9];
    uint8_t have;   /* of the head */
    uint8_t begun;  /* the greeting is being skipped, or has been */
    uint32_t frames; /* of the present message, before its last one */
    uint64_t bytes;
};

/* Follows the next bytes of a peer; PEER_REFUSED once a message has too many frames before its last one, else PEER_MORE. */
enum peer_verdict peer_guard_follow(struct peer_frames *frames, const uint8_t *bytes, size_t count);

/* Whether the connections that this listening socket accepts are judged. Ends by itself when libzmq closes it. */
void peer_guard_listener(int number, int on);

/* In a forked child, where the inherited numbers were closed without libzmq, and will be others'. */
void peer_guard_begin_in_child(void);

/* How many connections were refused. */
uint64_t peer_guard_refused(void);

/* The functions for libzmq's import table, and what two of them call in their turn: the C library's, or what stood there before. */
extern int (*_Atomic peer_guard_next_accept4)(int, struct sockaddr *, socklen_t *, int);
extern int (*_Atomic peer_guard_next_close)(int);
int peer_guard_accept4(int listener, struct sockaddr *address, socklen_t *length, int flags);
ssize_t peer_guard_recv(int number, void *buffer, size_t size, int flags);
int peer_guard_close(int number);
int peer_guard_epoll_ctl(int epoll, int operation, int number, struct epoll_event *event);
int peer_guard_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout_ms);

#endif
