"""Where Python code runs that is not in its usual place: foreign threads, sub-interpreters, its end.

Prints a JSON line each; the last ones while the interpreter is being finalised.
"""

# ruff: noqa: UP036

import atexit
import ctypes
import json
import os
import sys
import threading
import types

import python_probe
from python_probe import check


def tell(label, probe=python_probe, check=check, os=os, json=json):
    """Also when this module's own names are gone."""
    del probe.records[:]
    check(label)
    for record in probe.records:
        os.write(1, (json.dumps(record) + "\n").encode())


def in_foreign_thread():
    callback = ctypes.CFUNCTYPE(None)(lambda: tell("foreign thread"))
    frames_outside = python_probe.detached.call_in_thread(callback)
    assert frames_outside == 0, frames_outside


INSIDE = """
import sys
sys.path[:] = {path!r}
import python_scenes_odd
def inside():
    python_scenes_odd.tell("sub-interpreter")
inside()
"""


def in_sub_interpreter():
    source = INSIDE.format(path=sys.path)
    if sys.version_info >= (3, 13):
        import _interpreters

        number = _interpreters.create("legacy")
        failed = _interpreters.run_string(number, source)
        assert not failed, failed
        _interpreters.destroy(number)
    elif sys.version_info >= (3, 8):
        import _xxsubinterpreters

        legacy = {"isolated": False} if sys.version_info >= (3, 9) else {}
        number = _xxsubinterpreters.create(**legacy)
        _xxsubinterpreters.run_string(number, source)
        _xxsubinterpreters.destroy(number)
    tell("after the sub-interpreter")


class AtTheEnd:
    def __init__(self, tell):
        self.tell = tell

    def __del__(self):
        self.tell("del at the end")


def daemon(begun):
    begun.set()
    python_probe.detached.walk_many(ctypes.byref(origin), 10**9)  # goes on while the interpreter frees its state


def main():
    in_foreign_thread()
    in_sub_interpreter()
    atexit.register(lambda: tell("atexit"))
    begun = threading.Event()
    thread = threading.Thread(target=daemon, args=(begun,))
    thread.daemon = True
    thread.start()
    begun.wait()


if __name__ == "__main__":
    origin = python_probe.Origin()
    main()
    kept = sys.modules["kept_to_the_end"] = types.ModuleType("kept_to_the_end")
    kept.at_the_end = AtTheEnd(tell)
    del kept
