"""The recorder in real programs: launch, environment, fork, vfork, exec, chroot, signals, threads, SIGKILL."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leakline.proc.snapshot import snapshot
from leakline.recorder import Recording, find_recording, read_recording
from leakline.recorder.reconcile import reconcile
from leakline.recorder.recording_place import recording_path, recording_pattern

NATIVE = Path(__file__).parents[3] / "src/leakline/recorder/target"
LIBRARY = NATIVE / "libleakline_recorder.so"
# As `leakline run` does: the pid is that of the program, as the shell becomes it.
SHELL = 'export LEAKLINE_PID=$$ LEAKLINE_RECORDING="$1" LD_PRELOAD="$2${LD_PRELOAD:+:}$LD_PRELOAD"; shift 2; exec "$@"'
HELPERS = """
import json, os, subprocess, sys
def say(**facts):
    print(json.dumps(facts), flush=True)
def wait():
    sys.stdin.readline()
"""


class Target:
    """A program under the recorder, that says a line of JSON at a time and goes on when it is told."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.folder = process, folder
        self.pid = process.pid

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the program ended with {self.process.wait()}"
        return dict(json.loads(line))

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def recording(self) -> Recording:
        path = find_recording(self.pid)
        assert path is not None
        return read_recording(path)

    def ended(self) -> int:
        self.process.communicate(timeout=30)
        return self.process.returncode


Launch = Callable[..., Target]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """`launch(source, …)` starts a Python program (or with `command`, another) under the recorder."""
    subprocess.run(["make", "--silent", "-C", str(NATIVE)], check=True)
    running: list[Target] = []

    def run(source: str = "", *, command: list[str] | None = None, folder: Path = tmp_path, **variables: str) -> Target:
        program = command or [sys.executable, "-I", "-c", HELPERS + textwrap.dedent(source)]
        process = subprocess.Popen(
            ["/bin/sh", "-c", SHELL, "sh", recording_pattern(folder), str(LIBRARY), *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        running.append(Target(process, folder))
        return running[-1]

    yield run
    for target in running:
        target.process.kill()
        target.process.communicate()


@pytest.fixture(scope="module")
def busy_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("busy") / "busy_program"
    source = Path(__file__).with_name("busy_program.c")
    subprocess.run(["cc", "-O1", "-g", "-Wall", "-Werror", "-pthread", "-o", str(program), str(source)], check=True)
    return str(program)


def how(recording: Recording, number: int) -> str:
    return next((slot.how for slot in recording.slots if slot.number == number), "not open")


def same_as_proc(target: Target) -> Recording:
    """The recording, which has exactly what /proc has, of the right kinds."""
    now = snapshot(target.pid)
    recording = target.recording()
    found = reconcile(recording, now)
    assert [slot.number for slot in found.slots] == [each.number for each in now.descriptors]
    assert (found.outside, found.dropped) == ((), ())
    assert (recording.torn, recording.unstored, recording.off_because) == (0, 0, "")
    return recording


def test_a_launched_program_is_recorded_and_sees_its_own_environment(launch: Launch) -> None:
    target = launch(
        """
        kept = os.open("/dev/null", os.O_RDONLY)
        say(kept=kept, environment={name: os.environ[name] for name in os.environ if "LEAK" in name or "LD_" in name},
            child=subprocess.run(["env"], capture_output=True, text=True, env=None).stdout)
        wait()
        """
    )
    said = target.hear()
    assert said["environment"] == {}
    assert "LEAKLINE" not in said["child"]
    assert "LD_PRELOAD" not in said["child"]
    recording = same_as_proc(target)
    assert (how(recording, 0), how(recording, said["kept"])) == ("older", "opened")
    assert (recording.mode, recording.pid, recording.parent_pid, recording.live) == ("launched", target.pid, 0, True)
    assert recording.path == str(recording_path(target.folder, target.pid))
    assert recording.python_version >> 16 == sys.version_info[0] << 8 | sys.version_info[1]
    target.go_on()
    assert target.ended() == 0
    recording = read_recording(recording.path)
    assert recording.ended_at_s is not None
    assert not recording.live
    assert [path.name for path in target.folder.iterdir()] == [Path(recording.path).name]


def test_what_else_was_preloaded_stays(launch: Launch) -> None:
    other = "libm.so.6"
    target = launch("say(preload=os.environ.get('LD_PRELOAD'))", LD_PRELOAD=other)
    assert target.hear() == {"preload": other}


def test_a_program_that_was_not_meant_is_not_recorded(tmp_path: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(LIBRARY), "LEAKLINE_RECORDING": recording_pattern(tmp_path)}
    done = subprocess.run(["/bin/sh", "-c", "env; env"], env={**environment, "LEAKLINE_PID": "1"}, capture_output=True)
    assert done.returncode == 0
    assert b"LEAKLINE" not in done.stdout
    assert list(tmp_path.iterdir()) == []


FORKS = """
    kept = os.open("/dev/null", os.O_RDONLY)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(kept)
        own = os.open("/dev/null", os.O_RDONLY)
        own = os.dup(own)
        say(pid=os.getpid(), own=own, write=write)
        wait()
        os._exit(0)
    say(kept=kept, child=pid)
    os.waitpid(pid, 0)
    say()
    wait()
"""


def test_a_forked_child_leaves_its_parents_recording_alone(launch: Launch) -> None:
    target = launch(FORKS)
    said = {**target.hear(), **target.hear()}
    assert find_recording(said["child"]) is None
    target.go_on()
    target.hear()
    recording = same_as_proc(target)
    assert how(recording, said["kept"]) == "opened"
    assert len(list(target.folder.iterdir())) == 1


def test_a_followed_child_has_its_own_recording(launch: Launch) -> None:
    target = launch(FORKS, LEAKLINE_FOLLOW="1")
    said = {**target.hear(), **target.hear()}
    path = find_recording(said["child"])
    assert path == recording_path(target.folder, said["child"])
    child = read_recording(path)
    assert (child.pid, child.parent_pid, child.live) == (said["child"], target.pid, True)
    assert (how(child, said["own"]), how(child, said["write"])) == ("duplicated", "inherited")
    now = {each.number for each in snapshot(said["child"]).descriptors}
    assert {slot.number for slot in child.slots} == now
    target.go_on()
    target.hear()
    same_as_proc(target)


@pytest.mark.parametrize("follow", ["", "1"])
def test_programs_that_are_started_by_vfork_and_spawn(launch: Launch, follow: str) -> None:
    """The child of vfork closes all but three in its parent's memory."""
    target = launch(
        """
        kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
        assert getattr(subprocess, "_USE_VFORK", True)  # always since 3.14
        for _ in range(5):
            subprocess.run(["/bin/true"], close_fds=True, check=True)
        os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
        say(kept=kept)
        wait()
        """,
        LEAKLINE_FOLLOW=follow,
    )
    said = target.hear()
    recording = same_as_proc(target)
    assert {how(recording, number) for number in said["kept"]} == {"opened"}
    others = [read_recording(path) for path in target.folder.iterdir() if str(path) != recording.path]
    assert len(others) == (6 if follow else 0)
    assert all(other.parent_pid == target.pid for other in others)


def test_a_program_that_execs_another_is_recorded_further(launch: Launch) -> None:
    second = """
own = os.open("/dev/null", os.O_RDONLY)
say(own=own, kept=int(sys.argv[1]), environment=[name for name in os.environ if "LEAK" in name or "LD_" in name])
wait()
"""
    target = launch(
        f"""
        kept = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(kept, True)
        os.execv(sys.executable, [sys.executable, "-I", "-c", {HELPERS + second!r}, str(kept)])
        """
    )
    said = target.hear()
    assert said["environment"] == []
    recording = same_as_proc(target)
    assert (how(recording, said["kept"]), how(recording, said["own"])) == ("older", "opened")
    assert recording.command.split()[1] == "-I"
    assert len(list(target.folder.iterdir())) == 1


def test_a_daemon_that_closes_all_it_may_have(launch: Launch) -> None:
    target = launch(
        """
        kept = os.dup(1)
        os.closerange(3, kept)
        for number in [number for number in range(2, 256) if number not in (1, kept)]:
            try:
                os.close(number)
            except OSError:
                pass
        own = os.open("/dev/null", os.O_RDONLY)
        say(own=own)
        wait()
        """
    )
    said = target.hear()
    recording = same_as_proc(target)
    assert how(recording, said["own"]) == "opened"
    assert recording.wrong_closes == ()


@pytest.mark.root
def test_where_no_file_can_be_made_the_recording_has_no_name(launch: Launch, tmp_path: Path) -> None:
    target = launch("kept = os.open('/dev/null', os.O_RDONLY); say(kept=kept); wait()", folder=tmp_path / "missing")
    said = target.hear()
    path = find_recording(target.pid)
    assert path is not None
    assert path.parent == Path(f"/proc/{target.pid}/map_files")
    assert how(same_as_proc(target), said["kept"]) == "opened"


@pytest.mark.root
def test_a_program_that_drops_its_privileges_and_changes_its_root(launch: Launch, tmp_path: Path) -> None:
    target = launch(
        """
        import socket
        os.chroot("/var/empty" if os.path.isdir("/var/empty") else "/tmp")
        os.chdir("/")
        os.setgid(65534)
        os.setuid(65534)
        kept = [socket.socket().detach() for _ in range(3000)]
        say(kept=kept)
        wait()
        """
    )
    said = target.hear()
    recording = same_as_proc(target)
    assert {how(recording, number) for number in said["kept"]} == {"opened"}


def test_signal_handlers_that_open_at_random_points(launch: Launch, busy_program: str) -> None:
    """What comes inside the recorder is skipped and counted; nothing waits for itself."""
    target = launch(command=[busy_program, "signals", "100000"])
    signals = target.hear()["signals"]
    assert signals > 20
    now = snapshot(target.pid)
    recording = target.recording()
    found = reconcile(recording, now)
    assert recording.opened > 100_000
    assert len(found.outside) <= 1  # what the last signal opened, if it came inside the recorder
    assert recording.skipped <= 2 * signals


def test_16_threads_that_open_and_close_real_descriptors(launch: Launch, busy_program: str) -> None:
    """Read all the while; exact in the end."""
    target = launch(command=[busy_program, "threads", "4000"])
    for _ in range(10):
        path = find_recording(target.pid)
        if path is not None:
            recording = read_recording(path)
            assert all(slot.stack or slot.how == "older" for slot in recording.slots)
    target.hear()
    recording = same_as_proc(target)
    assert recording.skipped == 0
    for stack in recording.stacks.values():
        assert stack.opened - stack.closed == stack.alive
    assert recording.opened - recording.closed == sum(slot.how not in ("older",) for slot in recording.slots)


@pytest.mark.parametrize("way", ["prctl", "syscall"])
@pytest.mark.parametrize("follow", ["", "1"])
def test_behind_a_filter_of_system_calls(launch: Launch, compiled: Callable[..., Path], way: str, follow: str) -> None:
    """The filter ends the process at the first call that the program does not make itself."""
    target = launch(command=[str(compiled("filtered.c")), way], LEAKLINE_FOLLOW=follow)
    target.hear()
    recording = same_as_proc(target)
    assert sum(slot.function == "eventfd" for slot in recording.slots) == 1 + 2048 // 8
    assert len(list(target.folder.iterdir())) == 1
    target.go_on()
    assert target.ended() == 0


def test_children_of_clone_in_every_way(launch: Launch, compiled: Callable[..., Path]) -> None:
    """No handler of fork is told of them, and some share the memory with their parent."""
    target = launch(command=[str(compiled("children.c"))])
    last = target.hear()["last"]
    recording = same_as_proc(target)
    assert how(recording, last) == "opened"
    assert sum(slot.function.startswith("open") for slot in recording.slots) == 20
    assert recording.wrong_closes == ()
    target.go_on()
    assert target.ended() == 0


def resident_bytes(path: Path) -> int:
    """Of the file, in the kernel's page cache. A file system in memory has only what was written."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    library.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    size = path.stat().st_size
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    with path.open("rb") as file:
        place = library.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    assert place != ctypes.c_void_p(-1).value
    try:
        assert library.mincore(place, size, pages) == 0
    finally:
        library.munmap(place, size)
    return sum(byte & 1 for byte in pages.raw) * mmap.PAGESIZE


def test_a_small_recording_is_small(launch: Launch) -> None:
    """The kernel would read ahead in the holes of the file, and clear megabytes before the program begins."""
    target = launch("say(); wait()")
    target.hear()
    path = find_recording(target.pid)
    assert path is not None
    resident = resident_bytes(path)
    target.go_on()
    assert target.ended() == 0
    assert 0 < resident < 2 << 20


@pytest.mark.root
def test_a_full_file_system_leaves_the_program_alone(launch: Launch, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "leakline-test", str(tmp_path)], check=True)
    try:
        target = launch(
            """
            kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(15000)]
            say(kept=len(kept), errors=0)
            wait()
            """
        )
        assert target.hear()["kept"] == 15_000
        recording = target.recording()
        target.go_on()
        assert target.ended() == 0
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert recording.unstored > 0
