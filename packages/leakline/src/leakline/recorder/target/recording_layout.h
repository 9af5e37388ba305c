/* The layout of a recording: what another process reads, and keeps reading after the writer was killed.
 *
 *   header | functions | libraries | codes | stacks | wrong closes | index of codes | index of stacks | frames | text | slots
 *
 * One sparse file; storage is given to it as it is used. Libraries, codes, stacks, frames and text only grow. A slot and a wrong close start with a
 * sequence number that is odd while the record is being written, and larger afterwards. Numbers of libraries, codes and stacks begin with 1: 0 is
 * "not known". All integers are in the machine's byte order, all times are CLOCK_MONOTONIC in nanoseconds. leakline/recorder/recording.py is the
 * reader; a change here needs a new LEAKLINE_RECORDING_VERSION.
 */
#ifndef LEAKLINE_RECORDING_LAYOUT_H
#define LEAKLINE_RECORDING_LAYOUT_H

#include <stdint.h>

#define LEAKLINE_RECORDING_MAGIC "LEAKREC1"
#define LEAKLINE_RECORDING_VERSION 2u

#define LEAKLINE_FUNCTIONS 512u
#define LEAKLINE_FUNCTION_NAME 32u
#define LEAKLINE_LIBRARIES 4096u
#define LEAKLINE_CODES (1u << 15)
#define LEAKLINE_STACKS (1u << 17)
#define LEAKLINE_WRONG_CLOSES 256u
#define LEAKLINE_FRAMES_SIZE (64u << 20)
#define LEAKLINE_TEXT_SIZE (32u << 20)
#define LEAKLINE_SLOTS_HIGHEST (1u << 20)
#define LEAKLINE_EVAL_RANGES 8u

enum leakline_mode { LEAKLINE_MODE_LAUNCHED = 1, LEAKLINE_MODE_ATTACHED = 2 };
enum leakline_record_state { LEAKLINE_RECORD_NONE = 0, LEAKLINE_RECORD_READY = 1 };

struct leakline_section {
    uint64_t offset;
    uint32_t size, count; /* of one record, in bytes; records there is room for (of frames and text: bytes) */
};

struct leakline_eval_range {
    uint64_t start, end; /* addresses of the interpreter's evaluation function */
};

struct leakline_recording_header {
    char magic[8]; /* written last: a file without it is still being made */
    uint32_t version;
    uint32_t header_size;
    uint64_t file_size;
    struct leakline_section functions, libraries, codes, stacks, wrong_closes, frames, text, slots;

    int32_t pid, parent_pid;    /* in the process's own pid namespace; parent_pid: of a child that is recorded too, else 0 */
    uint64_t start_time_ticks;  /* field 22 of /proc/PID/stat: with the pid, the process's identity */
    uint64_t pid_namespace;     /* inode of /proc/self/ns/pid */
    uint64_t began_at_ns, ended_at_ns;
    uint32_t mode;              /* enum leakline_mode */
    uint32_t off;               /* 1: off_because says why */
    uint32_t python_version;    /* 0: no Python */
    uint32_t eval_range_count;
    struct leakline_eval_range eval_ranges[LEAKLINE_EVAL_RANGES];
    char off_because[256]; /* UTF-8, terminated */
    char command[256];

    /* Bounds: records beyond them were never used. */
    uint32_t library_bound, code_bound, stack_bound, slot_bound;
    uint64_t frames_used, text_used; /* bytes */

    uint64_t generation; /* of the last slot that was filled */
    uint64_t marked;     /* slots that were filled without an open: older, inherited */
    uint64_t closed;
    uint64_t wrong_closes_seen; /* the newest LEAKLINE_WRONG_CLOSES are kept */
    uint64_t exhausted;         /* calls that failed with EMFILE or ENFILE; the first: */
    uint64_t exhausted_at_ns;
    uint32_t exhausted_error, exhausted_stack, exhausted_function;
    uint32_t exhausted_first; /* 1: the four before are written */

    /* What had no room. */
    uint64_t stacks_full, codes_full, libraries_full, out_of_range, unstored, skipped;
};

struct leakline_library_record {
    uint32_t state, unloaded;
    uint64_t start, end, bias;
    uint64_t loaded_at_generation;
    uint64_t path; /* offset in text */
    uint32_t path_length, build_id_length;
    uint8_t build_id[32];
};

struct leakline_code_record {
    uint32_t state;
    uint32_t first_line;
    uint64_t hash;
    uint64_t text; /* offset in text: file, name, lines, one after the other */
    uint32_t file_length, name_length, lines_length;
    uint32_t python_version;
    uint32_t flags;
    uint32_t reserved;
};

struct leakline_stack_record {
    uint16_t state, flags;
    uint32_t hash;
    uint64_t frames;     /* offset in frames: u64 address[native] | u16 library[native], padded to 8 | {u32 code; i32 instruction * 2 + entry}[python] */
    uint16_t native_count, python_count;
    uint16_t libzmq;     /* LEAKLINE_LIBZMQ_* */
    uint16_t path_words; /* after the frames, padded to 8 bytes: unwind_path.h. Of use to the process itself only */
    uint64_t generation; /* of the libraries, when the addresses were last known to be the same functions */
    uint64_t opened, closed;
    uint64_t first_at_ns, last_at_ns;
};

enum { LEAKLINE_LIBZMQ_INNERMOST = 1, LEAKLINE_LIBZMQ_ANYWHERE = 2 }; /* which frames are libzmq's */

struct leakline_slot {
    uint32_t sequence;
    uint16_t how; /* enum leakline_how; 0: not open */
    uint16_t function;
    uint32_t stack;
    int32_t related;
    uint32_t tid;
    uint16_t bind_error, connect_error;
    uint64_t generation; /* only grows: a number that is opened again has another one */
    uint64_t opened_at_ns;
    /* The last close of this number, of an earlier generation if it is open again. What is above stays after a close, but for `how`. */
    uint32_t close_stack, close_tid;
    uint64_t closed_at_ns;
    uint16_t close_function;
    uint16_t closed_alike;       /* 1: the stack that closed it had closed it before, when another stack had opened it */
    uint32_t earlier_open_stack; /* of the generation before */
};

enum leakline_wrong_close_kind {
    LEAKLINE_NOTHING_OPEN = 1,
    LEAKLINE_OTHER_OWNER = 2,   /* nothing is open any more: another thread closed what this one had opened */
    LEAKLINE_LIBRARY_OWNER = 3, /* closed what libzmq had opened, not through libzmq */
};

struct leakline_wrong_close_record {
    uint32_t sequence;
    int32_t number;
    uint32_t kind, error; /* kind 0: none after all */
    uint32_t function, stack, tid;
    uint32_t earlier_close_stack, earlier_close_tid;
    uint32_t open_stack, open_tid;
    uint32_t reserved;
    uint64_t at_ns, earlier_close_at_ns, opened_at_ns;
};

/* The names of the intercepted functions are char[LEAKLINE_FUNCTION_NAME], terminated, by number.
 *
 * Where the sections are. Each begins on its own page, so that storage is given to one at a time. */
#define LEAKLINE_HEADER_SIZE 4096u
#define LEAKLINE_PAGES(size) (((uint64_t)(size) + 4095u) & ~UINT64_C(4095))
#define LEAKLINE_FUNCTIONS_AT ((uint64_t)LEAKLINE_HEADER_SIZE)
#define LEAKLINE_LIBRARIES_AT (LEAKLINE_FUNCTIONS_AT + LEAKLINE_PAGES(LEAKLINE_FUNCTIONS * LEAKLINE_FUNCTION_NAME))
#define LEAKLINE_CODES_AT (LEAKLINE_LIBRARIES_AT + LEAKLINE_PAGES(LEAKLINE_LIBRARIES * sizeof(struct leakline_library_record)))
#define LEAKLINE_STACKS_AT (LEAKLINE_CODES_AT + LEAKLINE_PAGES(LEAKLINE_CODES * sizeof(struct leakline_code_record)))
#define LEAKLINE_WRONG_CLOSES_AT (LEAKLINE_STACKS_AT + LEAKLINE_PAGES(LEAKLINE_STACKS * sizeof(struct leakline_stack_record)))
#define LEAKLINE_CODE_INDEX_AT (LEAKLINE_WRONG_CLOSES_AT + LEAKLINE_PAGES(LEAKLINE_WRONG_CLOSES * sizeof(struct leakline_wrong_close_record)))
#define LEAKLINE_STACK_INDEX_AT (LEAKLINE_CODE_INDEX_AT + LEAKLINE_PAGES(2u * LEAKLINE_CODES * sizeof(uint32_t)))
#define LEAKLINE_FRAMES_AT (LEAKLINE_STACK_INDEX_AT + LEAKLINE_PAGES(2u * LEAKLINE_STACKS * sizeof(uint32_t)))
#define LEAKLINE_TEXT_AT (LEAKLINE_FRAMES_AT + LEAKLINE_FRAMES_SIZE)
#define LEAKLINE_SLOTS_AT (LEAKLINE_TEXT_AT + LEAKLINE_TEXT_SIZE)
#define LEAKLINE_FILE_SIZE(slots) (LEAKLINE_SLOTS_AT + LEAKLINE_PAGES((uint64_t)(slots) * sizeof(struct leakline_slot)))

_Static_assert(sizeof(struct leakline_recording_header) <= LEAKLINE_HEADER_SIZE, "the header is one page");
_Static_assert(sizeof(struct leakline_library_record) == 88, "no hidden padding");
_Static_assert(sizeof(struct leakline_code_record) == 48, "no hidden padding");
_Static_assert(sizeof(struct leakline_stack_record) == 64, "one cache line");
_Static_assert(sizeof(struct leakline_slot) == 64, "one cache line");
_Static_assert(sizeof(struct leakline_wrong_close_record) == 72, "no hidden padding");

#endif
