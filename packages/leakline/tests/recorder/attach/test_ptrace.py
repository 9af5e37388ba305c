"""Calls in another process, which does not notice: its waits end when, and with what, they would have."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leakline.recorder import ptrace
from leakline.recorder.exports import Exports
from leakline.recorder.ptrace import Called, Status

WAIT_MS = 2500
LATE_MS = 400  # a wait may end so much later: the machine is shared

# Name of the wait -> its result and errno when nobody interferes.
WAITS = {
    "nanosleep": (0, 0),
    "sleep_until": (0, 0),
    "poll": (0, 0),
    "ppoll": (0, 0),
    "select": (0, 0),
    "epoll_timeout": (0, 0),
    "epoll_event": (1, 0),
    "read_timer": (8, 0),
    "read_pipe": (1, 0),
    "recv": (1, 0),
    "wait": (1, 0),
    "condition": (errno.ETIMEDOUT, 0),
    "semaphore": (-1, errno.ETIMEDOUT),
    "pause_signal": (-1, errno.EINTR),
    "nanosleep_signal": (-1, errno.EINTR),
    "epoll_signal": (-1, errno.EINTR),
    "read_signal": (-1, errno.EINTR),
}


class Target:
    """A process to call functions of called.so in."""

    def __init__(self, build: Path, *command: str | Path) -> None:
        self.library = build / "called.so"
        self.process = subprocess.Popen(
            [os.fspath(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        loader = ptrace.loader_of(self.process.pid, ptrace.loaded(self.process.pid))
        assert loader is not None
        self.loader = loader

    def call(self, name: str, argument: str | None = None) -> Called:
        offset = Exports.in_file(self.library).symbols([name])[name]
        path = os.fspath(self.library)
        return ptrace.call(self.process.pid, self.loader, offset, argument, library_path=path)

    def output(self) -> str:
        return self.process.communicate(timeout=30)[0]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(build: Path) -> Iterator[type[Target]]:
    running: list[Target] = []

    class Started(Target):
        def __init__(self, *command: str | Path) -> None:
            super().__init__(build, *command)
            running.append(self)

    yield Started
    for target in running:
        target.end()


@pytest.mark.alone  # each wait is timed
def test_no_wait_notices_calls(build: Path, start: type[Target]) -> None:
    began = time.monotonic()  # before the first of them waits
    waiting = {kind: start(build / "waits", kind, str(WAIT_MS)) for kind in WAITS}
    counts = dict.fromkeys(WAITS, 0)
    while min(counts.values()) < 50 and time.monotonic() - began < WAIT_MS / 1000 - 0.7:
        for kind, target in waiting.items():
            called = target.call("spoil", "a text")
            assert called.status is Status.DONE, (kind, called.why())
            counts[kind] += 1
            assert called.result == counts[kind]
    assert min(counts.values()) >= 3
    wrong = {}
    for kind, target in waiting.items():
        result, error, elapsed = target.output().split()
        if (int(result), int(error)) != WAITS[kind] or not WAIT_MS - 15 <= float(elapsed) <= WAIT_MS + LATE_MS:
            wrong[kind] = (result, os.strerror(int(error)), elapsed)
    assert not wrong


def test_a_thread_that_runs_is_met_at_its_next_call(build: Path, start: type[Target]) -> None:
    target = start(build / "busy")
    for count in range(1, 51):
        called = target.call("spoil")
        assert called.status is Status.DONE, called.why()
        assert called.result == count
    assert target.process.poll() is None, target.output()


def test_why_a_library_was_not_loaded_is_told(build: Path, start: type[Target]) -> None:
    target = start(build / "waits", "nanosleep", "30000")
    target.library.with_name("no.so").write_text("no library")
    called = ptrace.call(target.process.pid, target.loader, 0, library_path=str(target.library.with_name("no.so")))
    assert called.status is Status.NOT_LOADED
    assert "file too short" in called.why()
    assert target.process.poll() is None


def test_a_call_that_crashes_leaves_the_thread_where_it_was(build: Path, start: type[Target]) -> None:
    target = start(build / "waits", "nanosleep", "700")
    called = target.call("fault")
    assert (called.status, called.error) == (Status.CRASHED, signal.SIGSEGV)
    assert "SIGSEGV" in called.why()
    assert target.call("spoil").status is Status.DONE
    result, error, elapsed = target.output().split()
    assert (result, error) == ("0", "0")
    assert float(elapsed) >= 699


def test_a_call_that_does_not_end_is_given_up(
    build: Path, start: type[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ptrace, "CALL_LIMIT_S", 0.3)
    target = start(build / "waits", "nanosleep", "900")
    assert target.call("never_end").status is Status.TOO_LONG
    result, error, _ = target.output().split()
    assert (result, error) == ("0", "0")


def test_a_signal_that_arrives_during_a_call_is_kept(build: Path, start: type[Target]) -> None:
    """The alarm comes while the thread is held: its handler runs afterwards, and ends the wait as ever."""
    for kind in ("pause_signal", "epoll_signal", "nanosleep_signal", "read_signal"):
        target = start(build / "waits", kind, "30000")
        with sent_when_held(target, signal.SIGALRM):
            assert target.call("linger", "500").status is Status.DONE
        result, error, _ = target.output().split()
        assert (int(result), int(error)) == WAITS[kind], kind


def test_a_stop_signal_that_arrives_during_a_call_stops_the_process_after_it(build: Path, start: type[Target]) -> None:
    target = start(build / "waits", "pause_signal", "30000")
    with sent_when_held(target, signal.SIGSTOP):
        assert target.call("linger", "500").status is Status.DONE
    until = time.monotonic() + 10
    while state_of(target.process.pid) != "T":
        assert time.monotonic() < until
    os.kill(target.process.pid, signal.SIGCONT)
    while state_of(target.process.pid) != "S":
        assert time.monotonic() < until


def test_killing_leakline_meanwhile_does_not_hurt_the_target(build: Path, start: type[Target]) -> None:
    target = start(build / "waits", "nanosleep", "5000")
    source = f"""
from leakline.recorder import ptrace
from leakline.recorder.exports import Exports
library = {str(target.library)!r}
loader = ptrace.loader_of({target.process.pid}, ptrace.loaded({target.process.pid}))
print("ready", flush=True)
offset = Exports.in_file(library).symbols(["linger"])["linger"]
ptrace.call({target.process.pid}, loader, offset, "700", library_path=library)
"""
    leakline = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert leakline.stdout is not None
    assert leakline.stdout.readline() == b"ready\n"
    until = time.monotonic() + 10
    while not tracer_of(target.process.pid):
        assert time.monotonic() < until
    leakline.kill()
    leakline.wait()
    assert tracer_of(target.process.pid)
    leakline.stdout.close()
    result, error, elapsed = target.output().split()
    assert (result, error) == ("0", "0")
    assert float(elapsed) >= 4999


@contextmanager
def sent_when_held(target: Target, number: int) -> Iterator[None]:
    """Sends the signal as soon as a thread of the target is held by whoever calls a function there."""
    sent = threading.Event()

    def send() -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if tracer_of(target.process.pid):
                os.kill(target.process.pid, number)
                sent.set()
                return

    sender = threading.Thread(target=send)
    sender.start()
    yield
    sender.join()
    assert sent.is_set()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def tracer_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("TracerPid:")))
