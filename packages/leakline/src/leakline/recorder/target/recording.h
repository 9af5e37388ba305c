/* The recording: which descriptors are alive, which stack opened each, what was closed wrongly; in one sparse file that is mapped shared, so
 * that another process reads it at any moment, also after this one was killed. recording_layout.h is its layout.
 *
 * State, not a stream: a slot for each descriptor number, a table of distinct stacks, of code objects, of libraries. Each is bounded; what
 * has no room is counted. Functions are called from any thread, without a lock where they are on the path of an open or a close;
 * none allocates, none changes errno.
 */
#ifndef LEAKLINE_RECORDING_H
#define LEAKLINE_RECORDING_H

#include "origin.h"

/* How a descriptor came. */
enum leakline_how {
    LEAKLINE_HOW_OPENED = 1,
    LEAKLINE_HOW_ACCEPTED = 2,
    LEAKLINE_HOW_DUPLICATED = 3, /* `related`: the descriptor it is a copy of */
    LEAKLINE_HOW_RECEIVED = 4,   /* by SCM_RIGHTS */
    LEAKLINE_HOW_OLDER = 5,      /* was open when the recording began */
    LEAKLINE_HOW_INHERITED = 6,  /* was open when this process was forked */
};

/* --- beginning and end (recorder.c) */

/* Begins a recording in a new file at `path` (mode 0600; must not exist), or in an anonymous one if path is NULL or cannot be made. Marks what is
 * open now as older. 0, or minus the errno: then nothing is recorded. */
int leakline_recording_begin(const char *path);
/* Marks the recording ended; nothing is recorded from then on. */
void leakline_recording_end(void);
/* Switches the recorder off in this process, for good; `because` is told in the report. */
void leakline_recording_fail(const char *because);
/* Whether something is being recorded by this thread now: false when off, in a vfork child, or inside the recorder itself. */
bool leakline_recording_on(void);
/* Nothing is recorded in this process, nor was it asked for: a wrapper's quick look before anything else. False until that is known. */
extern bool leakline_idle;

/* --- on the path of each call (recording.c). A bracket: nothing the recorder does itself is recorded in between. */

bool leakline_enter(void); /* false: record nothing, do not leave */
void leakline_leave(void);

/* Stack number of an origin: the same stack has the same number. 0: the table is full (counted). */
uint32_t leakline_stack(const struct leakline_origin *origin);
/* Captures and numbers the caller's stack. */
uint32_t leakline_stack_here(const struct leakline_registers *caller);

/* After a call that made a descriptor. `function`: number of the intercepted function (intercepted.h); related: -1 for none. */
void leakline_opened(int number, enum leakline_how how, int related, uint32_t function, uint32_t stack);
/* Before a call that closes one: the number may be another's as soon as it returns. */
void leakline_closing(int number, uint32_t function, uint32_t stack);
/* After a close that failed, with its errno (EBADF: nothing was open): a wrong close, if nothing in the kernel explains it. */
void leakline_close_failed(int number, int error, uint32_t function, uint32_t stack);
/* Before close_range, closefrom: all from `first` to `last`, but `kept` (-1 for none). */
void leakline_closing_range(unsigned first, unsigned last, uint32_t function, uint32_t stack);
/* A bind or connect that failed: kept with the socket. */
void leakline_socket_failed(int number, uint32_t function, int error);
/* EMFILE or ENFILE: the first one's time and stack are kept, and all are counted. */
void leakline_exhausted(int error, uint32_t function, uint32_t stack);

/* --- for intercept.c */

/* Name of an intercepted function by its number, NULL beyond the last one. Written into the recording when it begins. (intercept.c) */
const char *leakline_function_name(uint32_t function);

/* A child that shares this process's memory, but not its descriptors. vfork() itself is in recording_vfork.c. */
void leakline_vfork_begin(void); /* around clone(CLONE_VM | CLONE_VFORK): nothing is recorded in this thread, nor in the child */
void leakline_vfork_end(void);
void leakline_memory_is_shared(void); /* before clone(CLONE_VM) without CLONE_VFORK or CLONE_THREAD: each call asks for the pid from then on */

/* Before a seccomp filter is installed (prctl, seccomp): what will be written gets its storage now, and the recording makes no system call
 * from then on, as one that the filter does not know may end the process. Its children, and programs that it executes, are not recorded. */
void leakline_recording_seal(void);

/* For exec: the environment with what leakline run put into it, for this process itself or, if children are to be recorded too, for a `child`: true
 * for posix_spawn, false for exec (a vfork child that calls exec is told apart here).
 * Bytes that it takes; 0: pass the environment on as it is. Does not allocate: the memory is the caller's (a vfork child shares its parent's). */
size_t leakline_environment_size(char *const environment[], bool child);
/* The same for a command of a shell: text that goes before it. */
size_t leakline_shell_words_size(void);
char *leakline_shell_words_fill(char *to);
char **leakline_environment_fill(void *memory, char *const environment[], bool child);

/* --- for python_frames.c: code objects by content */

struct leakline_code_text {
    const char *file, *name; /* UTF-8 (or Latin-1, see flags), not terminated */
    uint32_t file_length, name_length;
    uint32_t first_line;
    uint32_t python_version;       /* 0x030b07f0: says the format of `lines` */
    const unsigned char *lines;    /* co_lnotab, co_linetable: as it is */
    uint32_t lines_length;
    uint32_t flags;                /* LEAKLINE_TEXT_* */
};
enum { LEAKLINE_TEXT_FILE_LATIN1 = 1, LEAKLINE_TEXT_NAME_LATIN1 = 2, LEAKLINE_TEXT_FILE_UCS2 = 4, LEAKLINE_TEXT_NAME_UCS2 = 8,
       LEAKLINE_TEXT_FILE_UCS4 = 16, LEAKLINE_TEXT_NAME_UCS4 = 32, LEAKLINE_TEXT_CUT = 64 };
/* Number of a code object with this content: 1 or more; 0 when there is no room (counted). `address` is only a hint for a quick look: the content
 * is compared, as an address may be another object's by now. */
uint32_t leakline_code(uintptr_t address, const struct leakline_code_text *text);
/* Its content as it is kept: file, name and lines one after the other, of these lengths. Stays where it is while the recording does. */
const char *leakline_code_stored(uint32_t code, uint32_t lengths[3]);

#endif
