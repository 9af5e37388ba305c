"""One stack out of two: the interpreter's frames are replaced by the Python frames that they ran. Pure.

CPython runs Python code in one function, _PyEval_EvalFrameDefault. Up to 3.10 it calls itself for each Python call;
from 3.11 on, one native frame runs many Python frames. Each native one, from the innermost outwards, therefore takes
Python frames up to the next that is marked as the entry of its run. No Python frame is ever lost or reordered.
"""

from __future__ import annotations

import functools
import itertools
import posixpath
import re
from collections import deque
from collections.abc import Sequence

import msgspec

from leakline.facts import Frame
from leakline.recorder.recording import NATIVE_BROKEN, NATIVE_CUT

SIGNAL_FRAME = "<signal handler called>"
OFFSET = re.compile(r"(^|\+)0x[0-9a-f]+$")  # a frame without a name: library+0x1234, 0x1234

_INTERPRETER = re.compile(r"(lib)?python[23]?(\.\d+)?[dmut]*(\.so[\d.]*)?$")
_EVALUATES = re.compile(r"(_PyEval_EvalFrameDefault|_TAIL_CALL_\w+)$")
# What lies between the evaluation of a call and the C function that is called.
_MACHINERY = re.compile(
    r"(_?Py[A-Z]\w*(Call|[Vv]ector[Cc]all)\w*|_?PyEval_\w+|\w+_(vectorcall|fastcall)\w*|\w+_call(_\w+)?|call_\w+|do_call\w*"
    r"|object_vacall|cfunction_\w+|slot_\w+|wrap_\w+|gen_send_ex2?|gen_iternext)$"
)
_STARTS = re.compile(
    r"(_start|__libc_start_\w+|_?_?clone3?|__clone_internal\w*|start_thread|thread_start|_dl_start_user)$"
)
_C_LIBRARY = re.compile(r"(libc[.-]|libpthread[.-]|ld-|linux-vdso)")
_OWN = ("libleakline_recorder.so", "libleakline.so")


class Call(msgspec.Struct, frozen=True):
    """One native frame: its functions (inlined ones first). `evaluates`: it runs Python frames."""

    frames: tuple[Frame, ...]
    evaluates: bool = False


class Evaluated(msgspec.Struct, frozen=True):
    """One Python frame; `entry`: the outermost of those that one native frame ran."""

    frame: Frame
    entry: bool


@functools.lru_cache(maxsize=4096)
def is_interpreter(module: str) -> bool:
    """Whether a file is CPython itself: its program or its shared library."""
    return _INTERPRETER.match(posixpath.basename(module)) is not None


@functools.lru_cache(maxsize=4096)
def _is_own(module: str) -> bool:
    return posixpath.basename(module) in _OWN


def evaluates(function: str) -> bool:
    """Whether a native function is the one that runs Python frames."""
    return _EVALUATES.match(function) is not None


def merge(native: Sequence[Call], python: Sequence[Evaluated], flags: int = 0) -> tuple[Frame, ...]:
    """The stack as a person reads it, innermost first. `flags` are the stack's (why it is not whole)."""
    calls = [call for call in native if not _is_own(call.frames[0].module)]
    calls = [call for index, call in enumerate(calls) if not _same_run(calls, index)]
    if not python:
        return _trimmed([frame for call in calls for frame in call.frames])
    cut = bool(flags & (NATIVE_CUT | NATIVE_BROKEN))
    evaluations, entries = sum(call.evaluates for call in calls), sum(evaluated.entry for evaluated in python)
    if evaluations and (cut or evaluations >= entries):  # else some are not known: the rest would take what is theirs
        return _trimmed(_by_entries(calls, python, cut))
    return _trimmed(_without_entries(calls, [evaluated.frame for evaluated in python], cut))


def _same_run(calls: Sequence[Call], index: int) -> bool:
    """The tail-calling interpreter of 3.14: an instruction's function lies over the evaluation that it is part of."""
    return (
        calls[index].frames[-1].function.startswith("_TAIL_CALL_")
        and index + 1 < len(calls)
        and calls[index + 1].evaluates
    )


def _by_entries(calls: Sequence[Call], python: Sequence[Evaluated], cut: bool) -> list[Frame]:
    merged: list[Frame] = []
    rest = deque(python)
    last = max(index for index, call in enumerate(calls) if call.evaluates)
    for index, call in enumerate(calls):
        if not call.evaluates:
            merged += _kept(call, inner=len(rest) == len(python))
            continue
        while rest:
            evaluated = rest.popleft()
            merged.append(evaluated.frame)
            # What is left over when the whole native stack is known belongs to its last evaluation; when it was cut,
            # to evaluations beyond its end.
            if evaluated.entry and (index < last or cut):
                break
    return merged + [evaluated.frame for evaluated in rest]


def _without_entries(calls: Sequence[Call], python: list[Frame], cut: bool) -> list[Frame]:
    """Not every evaluation is known in the native frames: the interpreter is stripped, or the walk ended before one."""
    first = next((index for index, call in enumerate(calls) if is_interpreter(call.frames[0].module)), None)
    if first is None:
        native = [frame for call in calls for frame in call.frames]
        return native + python if cut else python + native
    inner = [frame for call in calls[:first] for frame in call.frames]
    for call in itertools.takewhile(lambda call: not call.evaluates and _kept(call, inner=True), calls[first:]):
        inner += _kept(call, inner=True)
        first += 1
    outer = [frame for call in calls[first:] for frame in call.frames if not is_interpreter(frame.module)]
    return inner + python + outer


def _kept(call: Call, *, inner: bool) -> tuple[Frame, ...]:
    """The frames of a native call that say something beside the Python frames: of CPython itself only the C function
    that Python code called (os_open), and only where the stack ends in it.
    """
    if not is_interpreter(call.frames[0].module):
        return call.frames
    if not inner:
        return ()
    return tuple(
        frame for frame in call.frames if not (OFFSET.search(frame.function) or _MACHINERY.match(frame.function))
    )


def _trimmed(frames: list[Frame]) -> tuple[Frame, ...]:
    """Without what starts every program and thread."""
    end = len(frames)
    while end > 1 and _starts(frames[end - 1]):
        end -= 1
    return tuple(frames[:end])


def _starts(frame: Frame) -> bool:
    if frame.language != "native":
        return False
    unnamed = OFFSET.search(frame.function) and _C_LIBRARY.match(posixpath.basename(frame.module))
    return bool(unnamed) or _STARTS.match(frame.function) is not None
