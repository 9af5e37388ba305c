/* Where a call came from: the native and the Python frames of the calling thread, as raw numbers. Names are found later, by another
 * process (leakline/recorder/origins.py).
 *
 * Everything here runs inside somebody else's program, in any thread, also in signal handlers: it allocates nothing, takes no lock
 * that the program could hold (nor Python's GIL), keeps errno, and never faults, whatever the stack looks like.
 */
#ifndef LEAKLINE_ORIGIN_H
#define LEAKLINE_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEAKLINE_NATIVE_FRAMES 48
#define LEAKLINE_PYTHON_FRAMES 32

/* Why a stack is not whole. */
enum {
    LEAKLINE_NATIVE_CUT = 1,    /* more native frames than LEAKLINE_NATIVE_FRAMES */
    LEAKLINE_PYTHON_CUT = 2,    /* more Python frames than LEAKLINE_PYTHON_FRAMES */
    LEAKLINE_NATIVE_BROKEN = 4, /* the walk met a frame that no rule describes (JIT code, a corrupt frame pointer) */
    LEAKLINE_PYTHON_BROKEN = 8, /* a Python frame could not be read */
};

/* The registers of the function that called an intercepted one, at that call. */
struct leakline_registers {
    uintptr_t pc; /* return address: the first frame */
    uintptr_t sp; /* the caller's stack pointer after the return */
    uintptr_t fp; /* the caller's frame pointer register (rbp, x29), whatever it is used for */
};

/* The caller's stack pointer. On x86-64 the frame record (rbp, return address) is the top of a frame, on aarch64 (x29, x30) its bottom. */
#if defined(__x86_64__)
#define LEAKLINE_CALLER_SP ((uintptr_t)__builtin_frame_address(0) + 16)
#else
#define LEAKLINE_CALLER_SP ((uintptr_t)__builtin_dwarf_cfa())
#endif
/* To be used in the intercepted function itself, which must be compiled with -fno-omit-frame-pointer. */
#define LEAKLINE_CALLER                                                                                                            \
    ((struct leakline_registers){.pc = (uintptr_t)__builtin_extract_return_addr(__builtin_return_address(0)),                     \
                                 .sp = LEAKLINE_CALLER_SP,                                                                         \
                                 .fp = *(uintptr_t *)__builtin_frame_address(0)})

/* One Python frame. `code` is the number of a code object in the recording (python_code.h), 0 if it could not be read. */
struct leakline_python_frame {
    uint32_t code;
    int32_t instruction; /* offset into the byte code, in bytes, of the instruction that runs; -1 if not known */
    uint32_t entry;      /* 1: the outermost Python frame of one run of the interpreter's loop; its caller is a native frame */
    uint32_t reserved;
};

struct leakline_path; /* unwind_path.h */

struct leakline_origin {
    uint16_t native_count, python_count;
    uint32_t flags;
    uint64_t generation; /* of the loaded libraries (leakline_libraries_generation()) when it was captured */
    void *walk;          /* the known walk of these frames, if there is one (unwind_known.c) */
    uint32_t walk_sequence, life;
    uint32_t stack;      /* the number of the stack that this walk was of last; 0: none. Its Python frames may have been others */
    uintptr_t native[LEAKLINE_NATIVE_FRAMES]; /* return addresses, innermost first */
    struct leakline_python_frame python[LEAKLINE_PYTHON_FRAMES]; /* innermost first */
    uint16_t *path; /* where the walk's path is to be written (unwind_path.h), by whoever asks for it; NULL: nowhere */
    uint16_t path_words; /* that were written; 0: it has none */
};

/* --- unwind.c: native frames. */

/* To be called once, from the constructor, before the others: finds what needs the loader. */
void leakline_unwind_prepare(void);
/* Walks the calling thread's stack. Fills native, native_count, generation and the flags NATIVE_*. */
void leakline_unwind(const struct leakline_registers *from, struct leakline_origin *origin);
/* The same where the frames of a stack that was walked before are expected: compares, which is cheaper, and gives false where they are others.
 * Fills native, native_count, generation and flags. */
bool leakline_unwind_along(const struct leakline_registers *from, const struct leakline_path *path, struct leakline_origin *origin);
/* Whether the calling thread's walks from this return address are so different, at this moment, that an expectation is worth a look. */
bool leakline_unwind_varies(uintptr_t pc);
/* Tells which stack number the frames of this origin, with its Python frames, have: the next leakline_unwind() of the same walk gives it. */
void leakline_unwind_numbered(const struct leakline_origin *origin, uint32_t stack);
/* To be called when a recording begins, also in a child after fork: the numbers of stacks are those of the recording before. */
void leakline_unwind_forget(void);
/* Grows when libraries were loaded or unloaded: equal addresses of different generations may be different functions. */
uint64_t leakline_libraries_generation(void);

/* --- python_frames.c: Python frames. */

/* Finds a Python interpreter in the process and how its frames are laid out; cheap when it is known. To be called from the constructor and
 * when libraries were loaded. */
void leakline_python_prepare(void);
/* Whether the interpreter is being finalised: from then on it closes everything by itself. To be asked after leakline_python() by the same
 * call, which has made sure that the interpreter is still loaded. */
bool leakline_python_ends(void);
/* Fills python, python_count and the flags PYTHON_*; nothing when the process has no (known) Python or the thread none. */
void leakline_python(struct leakline_origin *origin);
/* To be called when a recording begins, also in a child after fork: the numbers of code objects are those of the recording before. */
void leakline_python_forget(void);
/* The interpreter's version as PY_VERSION_HEX (0x030b07f0); 0 when the process has none whose frames can be read. */
uint32_t leakline_python_version(void);
/* Where the interpreter's evaluation function lies, [start, end), with the parts that the compiler split off. Returns how many were
 * stored; 0 when its symbols do not tell: then names decide (recorder/origins.py). */
struct leakline_range {
    uintptr_t start, end;
};
size_t leakline_python_eval_ranges(struct leakline_range *ranges, size_t room);

#endif
