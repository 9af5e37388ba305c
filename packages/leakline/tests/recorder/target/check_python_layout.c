/* Compares python_layouts.h with offsetof() in the headers of the interpreter that this is compiled against. Prints what differs. */
#define Py_BUILD_CORE 1
#include <Python.h>
#include <frameobject.h>
#include <stddef.h>
#include <stdio.h>
#if PY_VERSION_HEX >= 0x03080000
#include "internal/pycore_pystate.h"
#elif PY_VERSION_HEX >= 0x03070000
#include "internal/pystate.h"
#endif
#if PY_VERSION_HEX >= 0x03090000
#include "internal/pycore_interp.h"
#include "internal/pycore_runtime.h"
#endif
#if PY_VERSION_HEX >= 0x030b0000
#include "internal/pycore_code.h"
#include "internal/pycore_frame.h"
#endif
#include "python_layouts.h"

static int wrong, compared;

static void compare(const char *name, unsigned kept, size_t real) {
    compared++;
    if (kept != real)
        wrong += printf("%s is %zu, not %u\n", name, real, kept) > 0;
}
#define SAME(field, type, member) compare(#field, layout->field, offsetof(type, member))
#define NONE(field) compare(#field, layout->field, LEAKLINE_PYTHON_NONE)

static void compare_frames(const struct leakline_python_layout *layout) {
#if PY_VERSION_HEX < 0x030b0000
    SAME(thread_frame, PyThreadState, frame);
    SAME(frame_previous, PyFrameObject, f_back);
    SAME(frame_code, PyFrameObject, f_code);
    SAME(frame_instruction, PyFrameObject, f_lasti);
    compare("instruction_unit", layout->instruction_unit, PY_VERSION_HEX < 0x030a0000 ? 1 : 2);
    NONE(cframe_frame);
    NONE(frame_entry);
    NONE(frame_owner);
#else
    SAME(thread_frame, PyThreadState, cframe);
    SAME(cframe_frame, _PyCFrame, current_frame);
    SAME(frame_previous, _PyInterpreterFrame, previous);
    SAME(frame_code, _PyInterpreterFrame, f_code);
    SAME(frame_instruction, _PyInterpreterFrame, prev_instr);
    SAME(code_bytes, PyCodeObject, co_code_adaptive);
#if PY_VERSION_HEX < 0x030c0000
    SAME(frame_entry, _PyInterpreterFrame, is_entry);
    NONE(frame_owner);
#else
    SAME(frame_owner, _PyInterpreterFrame, owner);
    compare("shim_owner", layout->shim_owner, FRAME_OWNED_BY_CSTACK);
    NONE(frame_entry);
#endif
#endif
}

static void compare_state(const struct leakline_python_layout *layout) {
    SAME(thread_next, PyThreadState, next);
    SAME(thread_interpreter, PyThreadState, interp);
    SAME(thread_id, PyThreadState, thread_id);
#if PY_VERSION_HEX >= 0x03070000
    compare("next interpreter", 0, offsetof(PyInterpreterState, next));
#endif
#if PY_VERSION_HEX >= 0x030b0000
    SAME(interpreter_threads, PyInterpreterState, threads.head);
#elif PY_VERSION_HEX >= 0x03070000
    SAME(interpreter_threads, PyInterpreterState, tstate_head);
#endif
#if PY_VERSION_HEX >= 0x03090000
    SAME(runtime_finalizing, _PyRuntimeState, _finalizing);
#elif PY_VERSION_HEX >= 0x03070000
    SAME(runtime_finalizing, _PyRuntimeState, finalizing);
#else
    NONE(runtime_finalizing);
#endif
}

static void compare_objects(const struct leakline_python_layout *layout) {
    SAME(code_file, PyCodeObject, co_filename);
    SAME(code_first_line, PyCodeObject, co_firstlineno);
#if PY_VERSION_HEX >= 0x030b0000
    SAME(code_name, PyCodeObject, co_qualname);
#else
    SAME(code_name, PyCodeObject, co_name);
#endif
#if PY_VERSION_HEX >= 0x030a0000
    SAME(code_lines, PyCodeObject, co_linetable);
#else
    SAME(code_lines, PyCodeObject, co_lnotab);
#endif
    SAME(object_type, PyObject, ob_type);
    SAME(text_length, PyASCIIObject, length);
    compare("hash behind length", layout->text_length + 8u, offsetof(PyASCIIObject, hash));
    SAME(text_state, PyASCIIObject, state);
    compare("text_ascii", layout->text_ascii, sizeof(PyASCIIObject));
    compare("text_compact", layout->text_compact, sizeof(PyCompactUnicodeObject));
    SAME(bytes_length, PyVarObject, ob_size);
    SAME(bytes_data, PyBytesObject, ob_sval);
}

int main(void) {
    for (size_t i = 0; i < sizeof leakline_python_layouts / sizeof *leakline_python_layouts; i++) {
        if (leakline_python_layouts[i].minor != PY_MINOR_VERSION)
            continue;
        compare_frames(&leakline_python_layouts[i]);
        compare_state(&leakline_python_layouts[i]);
        compare_objects(&leakline_python_layouts[i]);
    }
    printf("compared %d\n", compared);
    return wrong != 0 || compared < 20;
}
