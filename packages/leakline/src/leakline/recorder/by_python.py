"""Calls functions in another Python process by letting it run a script (remote_exec.py): CPython 3.14 and later.

It calls between two instructions of its main thread, with the GIL, so no lock of malloc or of the loader is held by it.
Used where ptrace finds no thread that waits, or is another tracer's.
"""

from __future__ import annotations

import os

from leakline import remote_exec
from leakline.errors import LeaklineError
from leakline.recorder.ptrace import Called, Status

PATIENCE_S = 2.0  # for its main thread to come to run Python code

# The handle of a library is a struct link_map, which begins with the load address.
_SCRIPT = """
def leakline_answer():
    import time
    began = time.perf_counter()
    try:
        import ctypes, threading
        library, function, argument = {library!r}, {function!r}, {argument!r}
        if library is not None:
            function += ctypes.c_size_t.from_address(ctypes.PyDLL(library)._handle).value
        called = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_char_p)(function)(argument)
        return {{"result": called, "tid": threading.get_native_id(), "seconds": time.perf_counter() - began}}
    except OSError as error:
        return {{"refused": str(error), "seconds": time.perf_counter() - began}}
    except Exception as error:
        return {{"failed": repr(error), "seconds": time.perf_counter() - began}}
"""


def call(pid: int, function: int, argument: str | None = None, *, library_path: str | None = None) -> Called | None:
    """As ptrace.call: `function(argument)`, with `library_path` loaded before, `function` being an offset into it then.

    None where the process cannot be asked, or ran no Python code for PATIENCE_S. Safe in any thread.
    """
    if not remote_exec.possible():
        return None
    try:
        answer = remote_exec.run_in(pid, script(function, argument, library_path), PATIENCE_S)
    except LeaklineError:
        return None
    status, message = Status.DONE, ""
    if "refused" in answer:
        status, message = Status.NOT_LOADED, answer["refused"]
    elif "failed" in answer:
        status, message = Status.FAILED, answer["failed"]
    return Called(
        status=status,
        result=answer.get("result", 0),
        error=0,
        message=message,
        stopped_s=answer["seconds"],
        waited_s=0.0,
        tid=answer.get("tid", pid),
        system_call=-1,
        entered=False,
        by="python",
    )


def script(function: int, argument: str | None, library_path: str | None) -> str:
    """The program that makes the call in the process that runs it, and answers what came of it."""
    text = None if argument is None else os.fsencode(argument)
    return _SCRIPT.format(library=library_path, function=function, argument=text)
