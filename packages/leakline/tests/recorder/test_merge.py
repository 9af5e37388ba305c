"""Native and Python frames as one stack. Pure: no process, no recording."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from leakline.facts import Frame
from leakline.recorder.merge import Call, Evaluated, evaluates, is_interpreter, merge
from leakline.recorder.recording import NATIVE_BROKEN, NATIVE_CUT, PYTHON_CUT

LIBPYTHON = "/usr/lib/libpython3.11.so.1.0"
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"
SOCKET = "/usr/lib/python3.11/lib-dynload/_socket.cpython-311-x86_64-linux-gnu.so"
LIBZMQ = "/home/app/lib/python3.11/site-packages/pyzmq.libs/libzmq-2f.so.5"
CYTHON = "/home/app/lib/python3.11/site-packages/zmq/_zmq.abi3.so"


def native(function: str, module: str = LIBPYTHON) -> Call:
    frame = Frame(function=function, file=module, line=0, language="native", module=module)
    return Call((frame,), evaluates=evaluates(function))


def python(function: str, *, entry: bool = False) -> Evaluated:
    return Evaluated(Frame(function=function, file=f"/home/app/{function}.py", line=7, language="python"), entry)


def names(frames: tuple[Frame, ...]) -> list[str]:
    return [frame.function for frame in frames]


EVAL = "_PyEval_EvalFrameDefault"
OUTSIDE = [
    *map(native, ("_PyEval_Vector", "PyEval_EvalCode", "run_mod", "pymain_run_file", "Py_BytesMain")),
    native("main", "/usr/bin/python3.11"),
    native("libc.so.6+0x2724a", LIBC),
    native("__libc_start_main", LIBC),
    native("_start", "/usr/bin/python3.11"),
]


def test_frames_of_the_interpreter_become_the_python_frames_that_they_ran() -> None:
    stack = [
        native("sock_initobj", SOCKET),
        *map(native, ("type_call", "_PyObject_MakeTpCall", EVAL, "_PyFunction_Vectorcall", "method_vectorcall", EVAL)),
        *OUTSIDE,
    ]
    called = [python("connect"), python("query", entry=True), python("loop"), python("<module>", entry=True)]
    assert names(merge(stack, called)) == ["sock_initobj", "connect", "query", "loop", "<module>"]


def test_each_python_call_is_an_evaluation_up_to_3_10() -> None:
    stack = [native("os_open"), *map(native, ("cfunction_vectorcall_FASTCALL_KEYWORDS", "call_function", EVAL))]
    stack += [*map(native, ("_PyEval_EvalCodeWithName", "_PyFunction_Vectorcall", "call_function", EVAL)), *OUTSIDE]
    merged = merge(stack, [python("open_it", entry=True), python("<module>", entry=True)])
    assert names(merged) == ["os_open", "open_it", "<module>"]


def test_extension_modules_stay_where_they_are() -> None:
    stack = [
        native("libzmq-2f.so.5+0x1234", LIBZMQ),
        native("zmq_socket", LIBZMQ),
        native("__pyx_pf_3zmq_4_zmq_6Socket___init__", CYTHON),
        *map(native, ("type_call", "_PyObject_MakeTpCall", EVAL, "_PyFunction_Vectorcall")),
        native("__pyx_pw_3zmq_4_zmq_call", CYTHON),
        *map(native, ("cfunction_call", EVAL)),
        *OUTSIDE,
    ]
    called = [python("socket", entry=True), python("query"), python("<module>", entry=True)]
    assert names(merge(stack, called)) == [
        "libzmq-2f.so.5+0x1234",
        "zmq_socket",
        "__pyx_pf_3zmq_4_zmq_6Socket___init__",
        "socket",
        "__pyx_pw_3zmq_4_zmq_call",
        "query",
        "<module>",
    ]


def test_an_embedding_program_keeps_its_own_frames() -> None:
    stack = [native("os_open"), native(EVAL), native("PyObject_CallObject"), native("run_plugin", "/opt/app/server")]
    stack += [native("main", "/opt/app/server"), native("__libc_start_main", LIBC), native("_start", "/opt/app/server")]
    assert names(merge(stack, [python("plugin", entry=True)])) == ["os_open", "plugin", "run_plugin", "main"]


@pytest.mark.parametrize("flags", [NATIVE_CUT, NATIVE_BROKEN])
def test_python_frames_beyond_a_native_stack_that_was_cut_come_last(flags: int) -> None:
    stack = [native("os_open"), native(EVAL), native("hook", "/opt/app/hook.so")]
    called = [python("inner", entry=True), python("middle"), python("outer", entry=True)]
    assert names(merge(stack, called, flags)) == ["os_open", "inner", "hook", "middle", "outer"]
    assert names(merge(stack, called)) == ["os_open", "inner", "middle", "outer", "hook"]


def test_a_walk_that_broke_before_the_interpreter_is_inside_the_python_frames() -> None:
    stack = [native("zmq_socket", LIBZMQ), native("libzmq-2f.so.5+0x99", LIBZMQ)]
    merged = merge(stack, [python("query", entry=True)], NATIVE_BROKEN)
    assert names(merged) == ["zmq_socket", "libzmq-2f.so.5+0x99", "query"]


def test_a_stripped_interpreter_still_says_where_its_frames_lie() -> None:
    stack = [native("sock_initobj", SOCKET), *(native(f"libpython3.11.so.1.0+0x{at}") for at in (10, 20, 30)), *OUTSIDE]
    assert names(merge(stack, [python("query"), python("<module>", entry=True)])) == [
        "sock_initobj",
        "query",
        "<module>",
    ]


def test_an_interpreter_of_which_only_a_part_is_known_still_has_its_frames_in_order() -> None:
    """Debian's 3.14: most of the evaluation is split off, and those parts have no name."""
    split = native("python3.14+0x4472e7", "/usr/bin/python3.14")
    called = [python("inner", entry=True), python("key", entry=True), python("<module>", entry=True)]
    stack = [native("sock_initobj", SOCKET), split, native("PyObject_Vectorcall"), native(EVAL)]
    stack += [native("hook", "/opt/app/hook.so"), split, *OUTSIDE]
    assert names(merge(stack, called)) == ["sock_initobj", "inner", "key", "<module>", "hook"]


def test_python_comes_first_where_nothing_is_known_of_the_interpreter() -> None:
    stack = [native("app+0x10", "/opt/frozen/app"), native("app+0x20", "/opt/frozen/app")]
    assert names(merge(stack, [python("query", entry=True)])) == ["query", "app+0x10", "app+0x20"]


def test_without_python_frames_the_interpreter_is_shown() -> None:
    stack = [native("_Py_open"), native("PyImport_ImportModule"), native(EVAL), *OUTSIDE]
    assert names(merge(stack, []))[:3] == ["_Py_open", "PyImport_ImportModule", EVAL]
    assert names(merge(stack, []))[-1] == "main"


def test_a_tail_called_instruction_and_its_evaluation_are_one() -> None:
    stack = [native("os_open"), native("_TAIL_CALL_CALL"), native(EVAL), native("type_call"), native(EVAL), *OUTSIDE]
    called = [python("inner", entry=True), python("outer", entry=True)]
    assert names(merge(stack, called)) == ["os_open", "inner", "outer"]


def test_our_own_frames_are_absent() -> None:
    own = "/usr/lib/leakline/libleakline_recorder.so"
    stack = [native("leakline_open", own), native("query", "/opt/app/client"), native("main", "/opt/app/client")]
    assert names(merge(stack, [])) == ["query", "main"]


def test_a_thread_ends_in_its_own_function() -> None:
    stack = [native("worker", "/opt/app/client"), native("start_thread", LIBC), native("libc.so.6+0x1098dc", LIBC)]
    assert names(merge(stack, [])) == ["worker"]


def test_nothing_gives_nothing_and_a_start_alone_stays() -> None:
    assert merge([], []) == ()
    assert names(merge([native("_start", "/opt/app/client")], [])) == ["_start"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/bin/python3.11", True),
        ("/usr/bin/python", True),
        ("/usr/bin/python3.13t", True),
        ("/usr/lib/libpython3.6m.so.1.0", True),
        ("/usr/lib/libpython3.13t.so.1.0", True),
        ("/usr/lib/libpython-tools.so", False),
        ("/usr/bin/pythonista", False),
        (SOCKET, False),
    ],
)
def test_which_files_are_the_interpreter(path: str, expected: bool) -> None:
    assert is_interpreter(path) is expected


FUNCTIONS = ("os_open", EVAL, "_PyFunction_Vectorcall", "libpython3.11.so.1.0+0x77", "_TAIL_CALL_CALL", "_start")
CALLS = some.builds(
    native, some.sampled_from(FUNCTIONS), some.sampled_from((LIBPYTHON, SOCKET, LIBC, "/opt/app/client"))
)


@given(
    some.lists(CALLS, max_size=12),
    some.lists(some.booleans(), max_size=12),
    some.sampled_from((0, NATIVE_CUT, NATIVE_BROKEN, PYTHON_CUT)),
)
def test_no_python_frame_is_lost_or_reordered(stack: list[Call], entries: list[bool], flags: int) -> None:
    called = [python(f"f{index}", entry=entry) for index, entry in enumerate(entries)]
    merged = merge(stack, called, flags)
    assert [frame for frame in merged if frame.language == "python"] == [evaluated.frame for evaluated in called]
    # Native frames keep their order too, and those of the user's own files are never dropped.
    said = [frame.function for frame in merged if frame.module == "/opt/app/client" and frame.function == "os_open"]
    assert len(said) == sum(
        call.frames[0].module == "/opt/app/client" and call.frames[0].function == "os_open" for call in stack
    )
