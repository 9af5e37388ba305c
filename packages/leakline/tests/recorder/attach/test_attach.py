"""Attaching: what a process opens meanwhile has its origin, and after it the process is what it was before."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leakline import proc
from leakline.errors import LeaklineError, UnsupportedError, UsageError, ZombieError
from leakline.recorder import ptrace
from leakline.recorder.attach import attach
from leakline.recorder.attachable import AttachError
from leakline.recorder.origins import origins
from leakline.recorder.target_library import LIBRARY

Start = Callable[..., "subprocess.Popen[str]"]

LEAK = """
import os, sys
held = []
def leak():
    held.append(os.open("/dev/null", os.O_RDONLY))
print("ready", flush=True)
for line in sys.stdin:
    leak()
    print(held[-1], flush=True)
"""


@pytest.fixture
def run() -> Iterator[Start]:
    """Starts a program that prints a line when it is ready."""
    running: list[subprocess.Popen[str]] = []

    def start(*command: str | Path, **options: object) -> subprocess.Popen[str]:
        words = [os.fspath(word) for word in command]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
        running.append(process)
        assert process.stdout.readline() == "ready\n"
        return process  # type: ignore[no-any-return]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], line: str) -> list[int]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return [int(number) for number in process.stdout.readline().split()]


def memory_of(pid: int, *names: str) -> dict[tuple[int, str, str], bytes]:
    """Everything that is mapped of these files: by start, permissions and path."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return {
            (part.start, part.permissions, part.path): os.pread(memory.fileno(), part.end - part.start, part.start)
            for part in ptrace.mappings(pid)
            if os.path.basename(part.path) in names
        }


def imports(run: Start, build: Path) -> subprocess.Popen[str]:
    return run(build / "imports", build / "lazy.so", build / "now.so")


def test_what_is_opened_through_any_import_is_recorded_and_then_the_tables_are_as_before(
    run: Start, build: Path
) -> None:
    process = imports(run, build)
    before = memory_of(process.pid, "imports", "lazy.so", "now.so")
    descriptors, threads = proc.count(process.pid), len(proc.threads(process.pid))
    assert len(before) >= 12
    for _ in range(3):
        with attach(process.pid) as attached:
            assert memory_of(process.pid, "imports", "lazy.so", "now.so") != before
            *numbers, out_of_reach = ask(process, "open")
            recording = attached.recording()
        slots = {slot.number: slot for slot in recording.slots}
        assert [slots[number].function for number in numbers] == ["open", "eventfd", "open", "open"]
        assert out_of_reach not in slots or slots[out_of_reach].stack == 0 or slots[out_of_reach].function == "eventfd"
        assert {slots[number].how for number in (0, 1, 2)} == {"older"}
        descriptors += 5
        after = memory_of(process.pid, "imports", "lazy.so", "now.so")
        # What the program itself wrote meanwhile: lazily bound slots that it called for the first time, and its data.
        assert after.keys() == before.keys()
        assert {key for key in before if before[key] != after[key] and "w" not in key[1]} == set()
        assert proc.count(process.pid) == descriptors
        assert len(proc.threads(process.pid)) == threads
        assert not attached.path.exists()


def test_the_tables_of_a_process_that_does_nothing_are_byte_equal(run: Start, build: Path) -> None:
    process = imports(run, build)
    before = memory_of(process.pid, "imports", "lazy.so", "now.so")
    with attach(process.pid):
        pass
    assert memory_of(process.pid, "imports", "lazy.so", "now.so") == before


def test_a_library_that_is_loaded_later_is_recorded_too(run: Start, build: Path) -> None:
    process = imports(run, build)
    with attach(process.pid) as attached:
        (number,) = ask(process, f"load {build / 'later.so'}")
        slots = {slot.number: slot for slot in attached.recording().slots}
    assert slots[number].function == "open"
    assert slots[number].stack


@pytest.mark.parametrize("times", [1, 2])
def test_the_origin_of_what_python_opens_is_its_line(run: Start, times: int) -> None:
    process = run(sys.executable, "-c", LEAK)
    for _ in range(times):
        with attach(process.pid) as attached:
            (number,) = ask(process, "")
            recording = attached.recording()
            (origin,) = origins(recording, [number])
            assert [frame.function for frame in origin.frames if frame.language == "python"] == ["leak", "<module>"]
            assert recording.mode == "attached"


def test_a_process_that_is_attached_to_already_is_found(run: Start) -> None:
    process = run(sys.executable, "-c", LEAK)
    with attach(process.pid) as first:
        (number,) = ask(process, "")
        second = attach(process.pid)
        assert second.found
        assert number in {slot.number for slot in second.recording().slots}
        assert second.detach() > 0
        second.close()
        assert not first.recording().live


def test_the_recording_can_be_read_after_the_process_was_killed(run: Start) -> None:
    process = run(sys.executable, "-c", LEAK)
    with attach(process.pid) as attached:
        (number,) = ask(process, "")
        process.kill()
        process.wait()
        assert number in {slot.number for slot in attached.recording().slots}


def test_a_process_that_sees_other_files_gets_a_copy_which_is_gone_afterwards(run: Start) -> None:
    hidden = f"mount -t tmpfs none {LIBRARY.parent} && exec {sys.executable} -c '{LEAK}'"
    process = run("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hidden)
    assert not Path(f"/proc/{process.pid}/root{LIBRARY}").exists()
    with attach(process.pid) as attached:
        (number,) = ask(process, "")
        assert number in {slot.number for slot in attached.recording().slots}
    assert [one.path for one in ptrace.named(ptrace.loaded(process.pid), LIBRARY.name)] != []
    assert not list(Path(f"/proc/{process.pid}/root/tmp").glob(f"leakline-*/{LIBRARY.name}"))


def test_a_seccomp_filter_does_not_see_the_calls(run: Start) -> None:
    """The filter kills at openat; attaching loads a library in that thread."""
    source = (
        "import ctypes, struct\n"
        "openat = {'x86_64': 257, 'aarch64': 56}[__import__('os').uname().machine]\n"
        "rules = [(0x20, 0, 0, 0), (0x15, 0, 1, openat), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]\n"
        "code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *rule) for rule in rules))\n"
        "program = struct.pack('HxxxxxxP', len(rules), ctypes.addressof(code))\n"
        "libc = ctypes.CDLL(None)\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0\n"
    )
    process = run(sys.executable, "-c", source + LEAK.replace('os.open("/dev/null", os.O_RDONLY)', "os.dup(0)"))
    with attach(process.pid) as attached:
        (number,) = ask(process, "")
        assert number in {slot.number for slot in attached.recording().slots}
    assert ask(process, "") == [number + 1]


def refused(pid: int) -> LeaklineError:
    with pytest.raises(LeaklineError) as raised:
        attach(pid)
    assert raised.value.hint
    return raised.value


@pytest.mark.parametrize(
    ("program", "why"), [("static", "statically linked"), ("go", "a Go program"), ("musl", "runs on musl")]
)
def test_programs_without_a_glibc_to_intercept_are_refused(run: Start, build: Path, program: str, why: str) -> None:
    process = run(build / program, "nanosleep", "60000")
    error = refused(process.pid)
    assert isinstance(error, UnsupportedError)
    assert why in error.message


def test_states_in_which_no_thread_can_load_anything_are_refused(run: Start, build: Path) -> None:
    process = run(build / "waits", "nanosleep", "60000")
    process.send_signal(signal.SIGSTOP)
    until = time.monotonic() + 10
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < until
    assert "is stopped" in refused(process.pid).message
    process.send_signal(signal.SIGCONT)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(0x4206, process.pid, None, None) == 0  # PTRACE_SEIZE
    error = refused(process.pid)
    assert isinstance(error, AttachError)
    assert f"process {os.getpid()}" in error.message
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ZombieError):
        attach(process.pid)
    with pytest.raises(UsageError):
        attach(os.getpid())


def test_a_process_that_ignores_sigsegv_is_left_alone(run: Start) -> None:
    process = run(sys.executable, "-c", "import signal; signal.signal(signal.SIGSEGV, signal.SIG_IGN)\n" + LEAK)
    assert "ignores SIGSEGV" in refused(process.pid).message
    assert ask(process, "")
