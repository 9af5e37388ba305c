/* Loads a library into a running process and calls one of its functions there, in one short stop of one thread; all others keep running.
 *
 * The work is done by a child process made for it, in a session of its own, which lives for some milliseconds: Ctrl-C, a hang-up or a
 * SIGKILL of leakline do not reach it. If that child itself is killed while the target is inside a call, the target returns to
 * address 0 and dies of SIGSEGV: the return address has to be 0, as unwinders that run in the call stop there and nowhere else.
 */
#ifndef LEAKLINE_PTRACE_CALL_H
#define LEAKLINE_PTRACE_CALL_H

#include "descriptor_table.h"

#define LEAKLINE_REMOTE_PATH 4096
#define LEAKLINE_REMOTE_RANGES 4

enum leakline_remote_status {
    LEAKLINE_REMOTE_DONE = 0,         /* `result` is what the function returned */
    LEAKLINE_REMOTE_REFUSED = 1,      /* ptrace said no: `error` */
    LEAKLINE_REMOTE_GONE = 2,         /* the process ended meanwhile */
    LEAKLINE_REMOTE_NO_SAFE_POINT = 3, /* no thread came to one in `patience_ms` */
    LEAKLINE_REMOTE_NOT_LOADED = 4,   /* dlopen returned NULL: `message` */
    LEAKLINE_REMOTE_CRASHED = 5,      /* signal `error` at address `result` inside the call; the thread was put back where it was */
    LEAKLINE_REMOTE_TOO_LONG = 6,     /* a call did not end in `call_limit_ms`; the thread was put back where it was */
    LEAKLINE_REMOTE_FAILED = 7,       /* something else: errno `error` */
    LEAKLINE_REMOTE_UNFINISHED = 8,   /* the child was killed */
};

struct leakline_range {
    uint64_t start, end;
};

/* One request and its answer. Addresses are the target's; 0: none. */
struct leakline_remote {
    int32_t pid;
    uint32_t patience_ms, call_limit_ms;
    uint32_t suspend_seccomp; /* 1: the target has a seccomp filter, which is not to see our calls (needs CAP_SYS_ADMIN) */
    uint64_t errno_location, open_function, error_function;
    uint64_t open_mode;
    uint64_t function; /* an address, or with open_function the offset into the library that is opened */
    uint32_t has_argument;
    uint32_t range_count;
    struct leakline_range loader;                               /* ld.so: no call where a thread is inside */
    struct leakline_range c_library[LEAKLINE_REMOTE_RANGES];    /* the code of libc and libpthread */
    char library[LEAKLINE_REMOTE_PATH], argument[LEAKLINE_REMOTE_PATH];
    /* answer */
    int32_t status, error;
    int32_t tid;
    int32_t system_call; /* that the thread was in; -1 unknown */
    uint32_t entered;    /* 1: it was running, and was stopped as it entered the call */
    uint32_t reserved;
    int64_t result;
    uint64_t handle;     /* what dlopen returned */
    uint64_t stopped_ns; /* how long the thread stood still */
    uint64_t waited_ns;  /* of that: while it, or the child, was ready to run and had no processor */
    char message[512];
};

/* Returns the status, which is also in the request. Blocks for at most patience_ms + a few call_limit_ms. */
LEAKLINE_PUBLIC int leakline_remote_run(struct leakline_remote *remote);

#endif
