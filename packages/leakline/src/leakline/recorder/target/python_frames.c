/* The Python frames of the calling thread, read from CPython's own structures: no GIL, no reference counts, no allocation.
 *
 * The hook runs without the GIL in nearly every call (CPython gives it up around its system calls), so nothing of Python's API can be
 * used but what reads one word. A thread's own frames hold still while it is outside of the evaluation loop.
 */
#define _GNU_SOURCE
#include "origin.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "python_code.h"
#include "python_interpreter.h"
#include "python_reading.h"
#include "system_calls.h"
#include "unwind_libraries.h"

enum { SHIMS = 2, INTERPRETERS = 64, THREADS = 1024, KNOWN = 8 };

/* Each interpreter that was found keeps its place, as other threads may be reading it, and is found there again when the process has unloaded
 * it and loads it where it was. A process that loads more of them is recorded without Python frames from then on. */
static struct leakline_python known[KNOWN];
static atomic_uint known_count;
static _Atomic(struct leakline_python *) current;
static atomic_flag preparing = ATOMIC_FLAG_INIT;
static _Atomic uint64_t prepared_generation;

static struct leakline_python *placed(const struct leakline_python *found) {
    unsigned count = atomic_load(&known_count);
    for (unsigned i = 0; i < count; i++)
        if (leakline_python_is_same(&known[i], found))
            return &known[i];
    if (count == KNOWN)
        return NULL;
    known[count] = *found;
    atomic_store(&known_count, count + 1);
    return &known[count];
}

void leakline_python_prepare(void) {
    struct leakline_python found = {0};
    uint64_t signals = leakline_block_signals();
    if (atomic_flag_test_and_set(&preparing)) { /* another thread */
        leakline_restore_signals(signals);
        return;
    }
    struct leakline_python *python = atomic_load(&current);
    if (!leakline_python_find(python, &found))
        atomic_store(&current, NULL);
    else if (!python || !leakline_python_is_same(python, &found))
        atomic_store(&current, placed(&found));
    atomic_flag_clear(&preparing);
    leakline_restore_signals(signals);
}

bool leakline_python_ends(void) {
    const struct leakline_python *python = atomic_load_explicit(&current, memory_order_acquire);
    return python && __atomic_load_n(python->finalizing, __ATOMIC_RELAXED) != 0;
}

void leakline_python_forget(void) {
    leakline_python_code_forget();
    atomic_flag_clear(&preparing); /* in a child: the thread that was preparing is not there */
}

uint32_t leakline_python_version(void) {
    const struct leakline_python *python = atomic_load(&current);
    return python ? python->version : 0;
}

size_t leakline_python_eval_ranges(struct leakline_range *ranges, size_t room) {
    const struct leakline_python *python = atomic_load(&current);
    size_t count = python ? python->range_count : 0;
    if (count > room)
        count = room;
    if (count)
        memcpy(ranges, python->ranges, count * sizeof *ranges);
    return count;
}

/* rt_sigprocmask copies the eight bytes of its set before it looks at its (here invalid) `how`: EFAULT or EINVAL, and no effect. Seccomp
 * filters that kill a process for an unusual call let this one pass. */
bool leakline_python_probe(struct leakline_reading *reading, uintptr_t address, size_t size) {
    uintptr_t last = (address + (size ? size - 1 : 0)) & ~(uintptr_t)(LEAKLINE_PAGE - 1);
    for (uintptr_t page = address & ~(uintptr_t)(LEAKLINE_PAGE - 1); page <= last; page += LEAKLINE_PAGE) {
        uintptr_t *probed = &reading->probed[page / LEAKLINE_PAGE % LEAKLINE_PROBED_PAGES];
        if (*probed == page)
            continue;
        if (leakline_call4(SYS_rt_sigprocmask, ~0, (long)page, 0, 8) == -EFAULT)
            return false;
        *probed = page;
    }
    return true;
}

static void read_carefully(struct leakline_reading *reading) { *reading = (struct leakline_reading){.careful = true}; }

static uintptr_t innermost_frame(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t thread) {
    const struct leakline_python_layout *layout = &python->layout;
    if (!leakline_readable(reading, thread, layout->thread_id + sizeof(uintptr_t)))
        return 0;
    uintptr_t frame = leakline_word(thread, layout->thread_frame);
    if (layout->cframe_frame == LEAKLINE_PYTHON_NONE || !frame)
        return frame;
    return leakline_readable(reading, frame, 16) ? leakline_word(frame, layout->cframe_frame) : 0;
}

/* Up to 3.11 the thread-specific value stays that of the first interpreter when the thread enters another one. The newest interpreter in
 * which this thread has frames is the one it runs: the list begins with it. */
static uintptr_t thread_of_newest_interpreter(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t interpreter) {
    const struct leakline_python_layout *layout = &python->layout;
    read_carefully(reading); /* other threads' states, which may end */
    for (int i = 0; i < INTERPRETERS && leakline_readable(reading, interpreter, layout->interpreter_threads + 8); i++) {
        uintptr_t thread = leakline_word(interpreter, layout->interpreter_threads);
        for (int j = 0; j < THREADS && leakline_readable(reading, thread, layout->thread_id + 8); j++) {
            if (leakline_word(thread, layout->thread_id) == (uintptr_t)pthread_self() && innermost_frame(python, reading, thread))
                return thread;
            thread = leakline_word(thread, layout->thread_next);
        }
        interpreter = leakline_word(interpreter, 0);
    }
    return 0;
}

/* The thread that finalises the interpreter frees the states of all others, this one perhaps in the middle of a call into libc: it has let
 * go of the GIL. So a daemon thread has no frames any more from then on; asked before each frame, as it may begin during a walk. */
static bool is_ended(const struct leakline_python *python, uintptr_t thread) {
    uintptr_t finalizing = __atomic_load_n(python->finalizing, __ATOMIC_RELAXED);
    return finalizing && finalizing != thread;
}

/* The state of this thread; 0: Python does not know it. */
static uintptr_t own_thread(const struct leakline_python *python, struct leakline_reading *reading, bool *broken) {
    uintptr_t attached = (uintptr_t)python->names.attached();
    const bool each_thread = python->layout.minor >= 12; /* then `attached` is this thread's, before it is that of whoever has the GIL */
    uintptr_t thread = each_thread && attached ? attached : (uintptr_t)python->names.this_thread();
    if (!thread)
        return 0;
    if (is_ended(python, thread)) {
        *broken = true;
        return 0;
    }
    if (attached == thread)
        read_carefully(reading);
    if (each_thread) /* entering an interpreter changes the thread-specific value, too */
        return thread;
    uintptr_t newest = (uintptr_t)python->names.interpreters();
    if (attached == thread || (newest == leakline_word(thread, python->layout.thread_interpreter) && !leakline_word(newest, 0)))
        return thread;
    uintptr_t other = thread_of_newest_interpreter(python, reading, newest);
    return other ? other : thread;
}

/* Where the byte code begins that the frame runs; 0: not known. Free-threaded 3.14 has an array of copies: its length, then addresses. */
static uintptr_t byte_code(const struct leakline_python_layout *layout, struct leakline_reading *reading, uintptr_t frame, uintptr_t code) {
    if (layout->frame_copy == LEAKLINE_PYTHON_NONE)
        return code + layout->code_bytes;
    uintptr_t copies = leakline_readable(reading, code, layout->code_copies + 8u) ? leakline_word(code, layout->code_copies) : 0;
    uint32_t number = leakline_half(frame, layout->frame_copy);
    if (!leakline_readable(reading, copies, 8) || number >= leakline_word(copies, 0))
        return 0;
    uintptr_t entry = copies + 8 + 8 * (uintptr_t)number;
    return leakline_readable(reading, entry, 8) ? leakline_word(entry, 0) : 0;
}

/* Bytes from the beginning of the byte code; -1: not begun, or not known. */
static int32_t instruction_of(const struct leakline_python_layout *layout, struct leakline_reading *reading, uintptr_t frame, uintptr_t code) {
    if (layout->instruction_unit) {
        int32_t last = (int32_t)leakline_half(frame, layout->frame_instruction);
        return last < 0 ? -1 : last * layout->instruction_unit;
    }
    uintptr_t start = byte_code(layout, reading, frame, code);
    intptr_t offset = (intptr_t)(leakline_word(frame, layout->frame_instruction) - start);
    return !start || offset < 0 || offset > INT32_MAX ? -1 : (int32_t)offset;
}

/* 3.13+ runs __init__ of a class that is made often above a frame of the interpreter's own, which Python's tracebacks leave out, too: one
 * static code object whose file and name are the same string, and which has no line. */
static bool is_trampoline(const struct leakline_python_layout *layout, struct leakline_reading *reading, uintptr_t code) {
    return layout->entry == LEAKLINE_ENTRY_SHIM && leakline_readable(reading, code, layout->code_lines + 8u) &&
           leakline_half(code, layout->code_first_line) == 0 &&
           leakline_word(code, layout->code_file) == leakline_word(code, layout->code_name);
}

static size_t frame_size(const struct leakline_python_layout *layout) {
    unsigned size = layout->frame_instruction;
    size = layout->frame_code > size ? layout->frame_code : size;
    size = layout->frame_previous > size ? layout->frame_previous : size;
    return size + 32; /* is_entry, owner and the number of the copy stand behind the instruction */
}

static void walk(const struct leakline_python *python, struct leakline_reading *reading, uintptr_t thread, struct leakline_origin *origin) {
    const struct leakline_python_layout *layout = &python->layout;
    const size_t size = frame_size(layout);
    struct leakline_python_frame *last = NULL;
    uintptr_t frame = innermost_frame(python, reading, thread);
    for (unsigned steps = 0; frame && steps < SHIMS * LEAKLINE_PYTHON_FRAMES + 1; steps++) {
        if (is_ended(python, thread) || !leakline_readable(reading, frame, size)) {
            origin->flags |= LEAKLINE_PYTHON_BROKEN;
            return;
        }
        uintptr_t previous = leakline_word(frame, layout->frame_previous);
        if (layout->entry == LEAKLINE_ENTRY_SHIM && leakline_byte(frame, layout->frame_owner) >= layout->shim_owner) {
            if (last)
                last->entry = 1;
            frame = previous;
            continue;
        }
        uintptr_t code = leakline_word(frame, layout->frame_code) & ~(uintptr_t)layout->tagged;
        if (is_trampoline(layout, reading, code)) {
            frame = previous;
            continue;
        }
        if (origin->python_count == LEAKLINE_PYTHON_FRAMES) {
            origin->flags |= LEAKLINE_PYTHON_CUT;
            return;
        }
        last = &origin->python[origin->python_count++];
        *last = (struct leakline_python_frame){.code = leakline_python_code(python, reading, code), .instruction = -1};
        if (last->code)
            last->instruction = instruction_of(layout, reading, frame, code);
        else
            origin->flags |= LEAKLINE_PYTHON_BROKEN;
        if (layout->entry == LEAKLINE_ENTRY_EVERY)
            last->entry = 1;
        else if (layout->entry == LEAKLINE_ENTRY_FLAG)
            last->entry = leakline_byte(frame, layout->frame_entry) == 1;
        frame = previous;
    }
}

void leakline_python(struct leakline_origin *origin) {
    origin->python_count = 0;
    uint64_t generation = origin->generation;
    /* A loader that does not answer (in the child of a fork: ever again) is asked at the next call; meanwhile nothing is read. */
    if (generation != atomic_load_explicit(&prepared_generation, memory_order_relaxed)) {
        if (!leakline_loader_answers())
            return;
        atomic_store_explicit(&prepared_generation, generation, memory_order_relaxed);
        leakline_python_prepare(); /* the library may have gone: its functions must not be called */
    }
    const struct leakline_python *python = atomic_load_explicit(&current, memory_order_acquire);
    if (!python)
        return;
    struct leakline_reading reading;
    reading.careful = false;
    bool broken = false;
    uintptr_t thread = own_thread(python, &reading, &broken);
    if (thread)
        walk(python, &reading, thread, origin);
    else if (broken)
        origin->flags |= LEAKLINE_PYTHON_BROKEN;
}
