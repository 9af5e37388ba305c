/* The CPython interpreter in this process, as python_interpreter.c finds it. Private to the python_*.c files. */
#ifndef LEAKLINE_PYTHON_INTERPRETER_H
#define LEAKLINE_PYTHON_INTERPRETER_H

#include "origin.h"
#include "python_layouts.h"

enum { LEAKLINE_PYTHON_RANGES = 8 };

/* Functions and data of the interpreter that are reached by name. None of these functions takes a lock or the GIL: they read one
 * word each (a thread-specific value, the list's head, the thread state that is attached). */
struct leakline_python_names {
    void *(*this_thread)(void);      /* PyGILState_GetThisThreadState: the thread's own state, attached or not */
    void *(*attached)(void);         /* _PyThreadState_UncheckedGet, PyThreadState_GetUnchecked */
    void *(*interpreters)(void);     /* PyInterpreterState_Head */
    const char *(*version_text)(void); /* Py_GetVersion */
    const uint32_t *version;         /* Py_Version (3.11+) */
    const char *runtime;             /* _PyRuntime (3.7+) */
    const uintptr_t *finalizing;     /* _Py_Finalizing (3.6) */
    const void *code_type;           /* PyCode_Type */
    const void *text_type;           /* PyUnicode_Type */
    const void *bytes_type;          /* PyBytes_Type */
    const void *evaluate;            /* _PyEval_EvalFrameDefault */
    const void *debug_build;         /* _Py_NegativeRefcount: only builds with Py_REF_DEBUG have it */
};

struct leakline_python {
    uint32_t version; /* 0x030b07f0 */
    struct leakline_python_names names;
    struct leakline_python_layout layout;
    const uintptr_t *finalizing; /* the thread state that finalises the interpreter, or 0 */
    uintptr_t base;              /* where its library is loaded */
    struct leakline_range ranges[LEAKLINE_PYTHON_RANGES]; /* of the evaluation function */
    size_t range_count;
};

/* Looks through the loaded libraries. False: none that can be read. `known` (or NULL) is what was found before: what is still there as it
 * was is not looked at again. Takes the loader's (recursive) lock; allocates nothing. */
bool leakline_python_find(const struct leakline_python *known, struct leakline_python *python);
bool leakline_python_is_same(const struct leakline_python *one, const struct leakline_python *other);
/* The layout of an interpreter that describes itself (3.13+), from its _PyRuntime. False: it does not, or not in a known way. */
bool leakline_python_described(const char *runtime, uint32_t version, struct leakline_python_layout *layout);
/* Fills the ranges: `path` is the library's file ("" for the program itself), `size` that of the function by the dynamic symbol. */
void leakline_python_find_ranges(struct leakline_python *python, const char *path, size_t size);

#endif
