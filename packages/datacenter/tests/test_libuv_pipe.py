"""libuv's first pipe, with every number of descriptors that may be left when a command makes its loop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytest.importorskip("uvloop")

PROGRAM = """
import contextlib, os, resource, sys
import uvloop, uvloop.loop
from datacenter import libuv_pipe
path, left, guarded = uvloop.loop.__file__, int(sys.argv[1]), sys.argv[2] == "guarded"
if guarded:
    with libuv_pipe.ready_for(path):  # whatever is opened at its first use
        pass
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
lowest = os.dup(0)
os.close(lowest)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + left, hard))
try:
    with libuv_pipe.ready_for(path) if guarded else contextlib.nullcontext():
        loop = uvloop.new_event_loop()
    loop.close()
    print("works")
except OSError as error:
    print(error.strerror)
"""
MOST = 14


def outcomes(guarded: str) -> list[tuple[int, str]]:
    """The status and what was said, with 0, 1, 2, … descriptors left."""
    found = []
    for left in range(MOST + 1):
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(left), guarded], capture_output=True, text=True)
        found.append((done.returncode, done.stdout.strip()))
    return found


def test_a_loop_is_made_or_refused_and_nothing_aborts() -> None:
    assert set(outcomes("guarded")) == {(0, "Too many open files"), (0, "works")}
    assert -signal.SIGABRT in {status for status, _ in outcomes("plain")}, "libuv aborts no more: this can go"
