/* Where CPython keeps what python_frames.c reads: byte offsets of a 64-bit release build, by version.
 *
 * They are the same in every patch release of a version, as extensions are compiled against them. From 3.13 on the interpreter describes
 * itself (python_offsets.c). tests/recorder/target/test_python_layouts.py compiles offsetof() against each installed interpreter's
 * headers and compares.
 */
#ifndef LEAKLINE_PYTHON_LAYOUTS_H
#define LEAKLINE_PYTHON_LAYOUTS_H

#include <stdint.h>

enum { LEAKLINE_PYTHON_NONE = 0xffff }; /* this version has no such field */

/* How the outermost frame of one run of the evaluation loop is told. */
enum leakline_python_entry {
    LEAKLINE_ENTRY_EVERY, /* 3.6-3.10: each frame runs in a loop of its own */
    LEAKLINE_ENTRY_FLAG,  /* 3.11: the frame says it */
    LEAKLINE_ENTRY_SHIM,  /* 3.12+: the next frame outwards is a shim, owned by the C stack */
};

struct leakline_python_layout {
    uint16_t minor; /* of version 3.minor */
    /* PyThreadState */
    uint16_t thread_frame;  /* innermost frame; in 3.11 and 3.12 the _PyCFrame that points to it */
    uint16_t cframe_frame;  /* _PyCFrame.current_frame */
    uint16_t thread_next, thread_interpreter, thread_id;
    /* PyInterpreterState: its list of threads; next is its first field */
    uint16_t interpreter_threads;
    /* PyFrameObject, _PyInterpreterFrame */
    uint16_t frame_previous, frame_code, frame_instruction, frame_entry, frame_owner;
    uint16_t frame_copy; /* which copy of the byte code it runs (free-threaded 3.14) */
    uint16_t instruction_unit; /* f_lasti counts so many bytes; 0: frame_instruction is an address in the code */
    /* PyCodeObject */
    uint16_t code_file, code_name, code_first_line, code_lines, code_bytes, code_copies;
    /* PyObject, str, bytes */
    uint16_t object_type, text_length, text_state, text_ascii, text_compact; /* the last two: sizes, the characters follow */
    uint16_t bytes_length, bytes_data;
    /* _PyRuntime */
    uint16_t runtime_finalizing;
    uint8_t entry;      /* enum leakline_python_entry */
    uint8_t shim_owner; /* a frame with this owner or a greater one is a shim */
    uint8_t tagged;     /* bits of frame_code that are no address */
};

#define LEAKLINE_OBJECTS(ascii, compact)                                                                                           \
    .object_type = 8, .text_length = 16, .text_state = 32, .text_ascii = ascii, .text_compact = compact, .bytes_length = 16,       \
    .bytes_data = 32, .frame_copy = LEAKLINE_PYTHON_NONE, .code_copies = LEAKLINE_PYTHON_NONE
#define LEAKLINE_FRAME_OBJECTS(lasti, unit)                                                                                        \
    .thread_frame = 24, .cframe_frame = LEAKLINE_PYTHON_NONE, .thread_next = 8, .thread_interpreter = 16,                         \
    .interpreter_threads = 8, .frame_previous = 24, .frame_code = 32, .frame_instruction = lasti,                                 \
    .frame_entry = LEAKLINE_PYTHON_NONE, .frame_owner = LEAKLINE_PYTHON_NONE, .instruction_unit = unit,                           \
    .code_bytes = LEAKLINE_PYTHON_NONE, .entry = LEAKLINE_ENTRY_EVERY, LEAKLINE_OBJECTS(48, 72)

static const struct leakline_python_layout leakline_python_layouts[] = {
    {.minor = 6, .thread_id = 152, .code_file = 96, .code_name = 104, .code_first_line = 36, .code_lines = 112,
     .runtime_finalizing = LEAKLINE_PYTHON_NONE, LEAKLINE_FRAME_OBJECTS(120, 1)},
    {.minor = 7, .thread_id = 176, .code_file = 96, .code_name = 104, .code_first_line = 36, .code_lines = 112,
     .runtime_finalizing = 8, LEAKLINE_FRAME_OBJECTS(104, 1)},
    {.minor = 8, .thread_id = 176, .code_file = 104, .code_name = 112, .code_first_line = 40, .code_lines = 120,
     .runtime_finalizing = 16, LEAKLINE_FRAME_OBJECTS(104, 1)},
    {.minor = 9, .thread_id = 176, .code_file = 104, .code_name = 112, .code_first_line = 40, .code_lines = 120,
     .runtime_finalizing = 16, LEAKLINE_FRAME_OBJECTS(104, 1)},
    {.minor = 10, .thread_id = 176, .code_file = 104, .code_name = 112, .code_first_line = 40, .code_lines = 120,
     .runtime_finalizing = 16, LEAKLINE_FRAME_OBJECTS(96, 2)},
    {.minor = 11, .thread_frame = 56, .cframe_frame = 8, .thread_next = 8, .thread_interpreter = 16, .thread_id = 152,
     .interpreter_threads = 16, .frame_previous = 48, .frame_code = 32, .frame_instruction = 56, .frame_entry = 68,
     .frame_owner = LEAKLINE_PYTHON_NONE, .code_file = 112, .code_name = 128, .code_first_line = 72, .code_lines = 136,
     .code_bytes = 184, .runtime_finalizing = 24, .entry = LEAKLINE_ENTRY_FLAG, LEAKLINE_OBJECTS(48, 72)},
    {.minor = 12, .thread_frame = 56, .cframe_frame = 0, .thread_next = 8, .thread_interpreter = 16, .thread_id = 136,
     .interpreter_threads = 72, .frame_previous = 8, .frame_code = 0, .frame_instruction = 56,
     .frame_entry = LEAKLINE_PYTHON_NONE, .frame_owner = 70, .code_file = 112, .code_name = 128, .code_first_line = 68,
     .code_lines = 136, .code_bytes = 192, .runtime_finalizing = 24, .entry = LEAKLINE_ENTRY_SHIM, .shim_owner = 3,
     LEAKLINE_OBJECTS(40, 56)},
};

#endif
