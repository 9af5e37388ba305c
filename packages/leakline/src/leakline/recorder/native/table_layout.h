/* The layout of a table file: what another process reads, and keeps reading after the writer was killed.
 *
 *   header (one page) | owners | slots, one for each descriptor number
 *
 * The only writer is the process itself, under one lock. Each owner and slot starts with a sequence number that is odd while the
 * record is being written; `changes` in the header does the same for a whole operation (system call and record). All integers are
 * in the machine's byte order. `leakline/recorder/table_file.py` is the reader; a change here needs a new LEAKLINE_LAYOUT_VERSION.
 */
#ifndef LEAKLINE_TABLE_LAYOUT_H
#define LEAKLINE_TABLE_LAYOUT_H

#include <stdint.h>

#define LEAKLINE_MAGIC "LEAKLINE"
#define LEAKLINE_LAYOUT_VERSION 1u
#define LEAKLINE_HEADER_SIZE 4096u
#define LEAKLINE_OWNERS 4096u
#define LEAKLINE_SLOTS_HIGHEST (1u << 20)

/* What a descriptor is. The file carries these names, so that a reader needs no list of its own. Kind 0 is an empty slot. */
#define LEAKLINE_KINDS(X)                                                                                                          \
    X(NONE, "")                                                                                                                    \
    X(OTHER, "other")                                                                                                              \
    X(EVENTFD, "eventfd")                                                                                                          \
    X(EPOLL, "epoll")                                                                                                              \
    X(TCP, "tcp")                                                                                                                  \
    X(UDP, "udp")                                                                                                                  \
    X(UNIX, "unix")                                                                                                                \
    X(NETLINK, "netlink")                                                                                                          \
    X(SOCKET, "socket")                                                                                                            \
    X(PIPE, "pipe")                                                                                                                \
    X(FILE, "file")                                                                                                                \
    X(DIRECTORY, "directory")                                                                                                      \
    X(INOTIFY, "inotify")                                                                                                          \
    X(TIMERFD, "timerfd")                                                                                                          \
    X(SIGNALFD, "signalfd")                                                                                                        \
    X(PIDFD, "pidfd")                                                                                                              \
    X(MEMFD, "memfd")                                                                                                              \
    X(PTY, "pty")

enum leakline_kind {
#define LEAKLINE_KIND(name, text) LEAKLINE_KIND_##name,
    LEAKLINE_KINDS(LEAKLINE_KIND)
#undef LEAKLINE_KIND
        LEAKLINE_KIND_COUNT
};

/* How a record came into the table. */
enum leakline_source { LEAKLINE_OPENED = 1, LEAKLINE_ACCEPTED = 2, LEAKLINE_REGISTERED = 3 };

enum leakline_state { LEAKLINE_LIVE = 1, LEAKLINE_CLOSED = 2 };

struct leakline_header {
    char magic[8]; /* written last: a file without it is still being made */
    uint32_t layout_version;
    uint32_t header_size;
    uint32_t owner_size;
    uint32_t owner_count;
    uint32_t slot_size;
    uint32_t slot_count;
    uint64_t owners_offset;
    uint64_t slots_offset;
    int32_t pid;                /* in the process's own pid namespace */
    uint32_t state;             /* enum leakline_state */
    uint64_t start_time_ticks;  /* field 22 of /proc/PID/stat: with the pid, the process's identity */
    uint64_t created_at_ns;     /* CLOCK_MONOTONIC, as all times here */
    uint64_t changes;           /* odd while an operation is under way */
    uint64_t owner_bound;       /* owners beyond it were never used */
    uint64_t slot_bound;        /* slots beyond it were never used */
    uint64_t opened;            /* records made since the start */
    uint64_t closed;            /* records removed since the start */
    uint64_t unpublished;       /* records that could not be shown here (the file system is full) */
    uint64_t out_of_range;      /* descriptors that have no slot: their number is too high */
    uint64_t pid_namespace;     /* inode of /proc/self/ns/pid: pids of other namespaces cannot be looked up */
    uint32_t kind_count;
    uint32_t complete;          /* 1: every descriptor of the hooked library is here */
    char incomplete_because[256]; /* UTF-8, terminated */
    char kinds[64][16];
};

struct leakline_owner {
    uint32_t sequence;
    uint32_t state; /* enum leakline_owner_state */
    uint32_t references; /* slots that name it */
    uint32_t length;
    char name[112]; /* UTF-8, not terminated */
};

/* A released owner keeps its record, and its number, until the last slot that names it is gone. */
enum leakline_owner_state { LEAKLINE_OWNER_FREE = 0, LEAKLINE_OWNER_USED = 1, LEAKLINE_OWNER_RELEASED = 2 };

struct leakline_slot {
    uint32_t sequence;
    uint32_t kind;
    uint32_t owner; /* 0: not known */
    uint32_t tid;   /* thread that opened it */
    uint32_t source;
    uint32_t reserved;
    uint64_t generation; /* only grows: a number that is opened again has another one */
    uint64_t opened_at_ns;
    uint64_t inode; /* of a socket; 0 where the inode tells nothing (anonymous ones share it) */
};

_Static_assert(sizeof(struct leakline_header) <= LEAKLINE_HEADER_SIZE, "the header is one page");
_Static_assert(LEAKLINE_KIND_COUNT <= 64, "the header has room for 64 kinds");
_Static_assert(sizeof(struct leakline_owner) == 128, "no hidden padding");
_Static_assert(sizeof(struct leakline_slot) == 48, "no hidden padding");

#endif
