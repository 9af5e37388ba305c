"""Attaching to a process of which no thread ever enters a system call: by gdb, where no lock of malloc is held."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakline.recorder import gdb, ptrace
from leakline.recorder.attach import attach
from leakline.recorder.attachable import AttachError
from leakline.recorder.exports import Exports
from leakline.recorder.origins import origins
from leakline.recorder.ptrace import Called, Status
from leakline.recorder.unwound import Places, Unwound, can_call

pytestmark = pytest.mark.skipif(gdb.installed() is None, reason="gdb is not installed: docs/attach.md")


class Spin:
    """A program that computes, and opens a descriptor in a handler when it is told to."""

    def __init__(self, *command: str | Path) -> None:
        self.process = subprocess.Popen([os.fspath(word) for word in command], stdout=subprocess.PIPE, text=True)
        assert self._line() == "ready"
        self.pid = self.process.pid

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def open(self) -> int:
        self.process.send_signal(signal.SIGUSR1)
        return int(self._line())

    def call(self, library: Path, name: str, argument: str | None = None) -> Called:
        libraries = tuple(ptrace.loaded(self.pid))
        loader = ptrace.loader_of(self.pid, list(libraries))
        assert loader is not None
        offset = Exports.in_file(library).symbols([name])[name]
        return gdb.call(self.pid, loader, libraries, offset, argument, library_path=os.fspath(library))


@pytest.fixture
def spins(build: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spin]:
    monkeypatch.setattr(ptrace, "PATIENCE_S", 0.3)
    spin = Spin(build / "spin")
    yield spin
    spin.process.kill()
    spin.process.communicate()


def test_a_process_that_only_computes_is_attached_to_and_left_as_it_was(spins: Spin) -> None:
    for _ in range(2):  # loaded, then found loaded
        with attach(spins.pid) as attached:
            assert attached.by == "gdb"
            assert attached.held_s > 0
            number = spins.open()
            (origin,) = origins(attached.recording(), [number])
            functions = [frame.function for frame in origin.frames]
            assert functions[0] == "opens"
            assert "compute" in functions
            assert "main" in functions
        assert not Path(attached.path).exists()
        assert spins.open() == number + 1
        assert spins.process.poll() is None  # it looks at errno and at its vector registers all the time


def test_what_a_call_spoils_is_put_back(spins: Spin, build: Path) -> None:
    called = spins.call(build / "called.so", "spoil", "/a/path")
    assert (called.status, called.result, called.by) == (Status.DONE, 1, "gdb")
    spins.open()
    assert spins.process.poll() is None


def test_a_call_that_crashes_or_does_not_end_is_taken_back(
    spins: Spin, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = spins.call(build / "called.so", "fault", "text")
    assert crashed.status is Status.CRASHED
    assert re.search("was signaled while in a function called from GDB|received signal SIGSEGV", crashed.why())
    spins.open()
    monkeypatch.setattr(gdb, "CALL_LIMIT_S", 0.3)
    assert spins.call(build / "called.so", "never_end").status is Status.TOO_LONG
    spins.open()
    assert spins.process.poll() is None


def test_a_library_that_is_not_there_is_told(spins: Spin, build: Path) -> None:
    missing = spins.call(build / "called.so", "spoil")
    assert missing.status is Status.DONE
    libraries = tuple(ptrace.loaded(spins.pid))
    loader = ptrace.loader_of(spins.pid, list(libraries))
    assert loader is not None
    called = gdb.call(spins.pid, loader, libraries, 0, None, library_path="/no/such/library.so")
    assert called.status is Status.NOT_LOADED
    assert "cannot open shared object file" in called.message


def test_a_thread_that_libc_called_back_is_left_alone(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptrace, "PATIENCE_S", 0.3)
    monkeypatch.setattr(gdb, "TRIES", 2)
    spin = Spin(build / "spin", "callback")
    try:
        with pytest.raises(AttachError, match="was on each stack") as raised:
            attach(spin.pid)
        assert "leakline run" in raised.value.hint
        spin.open()
        assert spin.process.poll() is None
    finally:
        spin.process.kill()
        spin.process.communicate()


def test_a_stack_without_room_is_left_alone(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdb, "TRIES", 2)
    spin = Spin(build / "spin", "small")
    try:
        assert spin.call(build / "called.so", "spoil").status is Status.NO_SAFE_POINT
        assert spin.process.poll() is None
    finally:
        spin.process.kill()
        spin.process.communicate()


def test_without_gdb_it_says_what_to_install(spins: Spin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdb, "installed", lambda: None)
    with pytest.raises(AttachError) as raised:
        attach(spins.pid)
    assert "apt install gdb" in raised.value.hint


PLACES = Places(
    code=(
        ((0x1000, 0x2000), "/app"),
        ((0x3000, 0x4000), "/lib/libc.so.6"),
        ((0x5000, 0x6000), "/lib/ld-linux-x86-64.so.2"),
        ((0x7000, 0x8000), "/opt/libjemalloc.so.2"),
    ),
    program="/app",
    c_library=frozenset({"/lib/libc.so.6"}),
    loader=frozenset({"/lib/ld-linux-x86-64.so.2"}),
    allocators=frozenset({"/opt/libjemalloc.so.2"}),
)
APP, LIBC, LOADER, ALLOCATOR, NOWHERE = 0x1800, 0x3800, 0x5800, 0x7800, 0x9000


@pytest.mark.parametrize(
    ("frames", "safe"),
    [
        ([(APP, "compute"), (APP, "main"), (LIBC, "__libc_start_call_main"), (APP, "_start")], True),
        ([(APP, ""), (APP, ""), (LIBC, "start_thread"), (LIBC, "clone3")], True),
        ([(APP, "compute"), (APP, "main")], False),  # not to the end
        ([], False),
        ([(LIBC, "clone3")], False),
        ([(LIBC, "_int_malloc"), (APP, "main"), (LIBC, "__libc_start_call_main")], False),
        ([(APP, "handler"), (LIBC, "<signal handler called>"), (LIBC, "_int_free"), (APP, ""), (LIBC, "")], False),
        ([(APP, "compare"), (LIBC, "qsort_r"), (APP, "main"), (LIBC, "__libc_start_call_main")], False),
        ([(APP, "initialise"), (LOADER, "call_init"), (LIBC, "dlopen"), (APP, "main"), (LIBC, "")], False),
        ([(ALLOCATOR, "??"), (APP, "main"), (LIBC, "__libc_start_call_main")], False),
        ([(ALLOCATOR, "je_extent_split"), (APP, "main"), (LIBC, "__libc_start_call_main")], False),
        ([(APP, "operator new(unsigned long)"), (APP, "main"), (LIBC, "__libc_start_call_main")], False),
        ([(NOWHERE, "??"), (APP, "main"), (LIBC, "__libc_start_call_main")], False),  # generated code
    ],
)
def test_where_a_call_may_be_made(frames: list[tuple[int, str]], safe: bool) -> None:
    assert can_call([Unwound(address, name) for address, name in frames], PLACES) is safe
