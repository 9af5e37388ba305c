"""Programs that a recorded one starts: recorded where that was asked for, and never able to see it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXECS = ["execve", "execv", "execvp", "execvpe", "execl", "execlp", "execle", "fexecve", "execveat"]
SPAWNS = ["posix_spawn", "posix_spawnp", "vfork"]
SHELLS = ["system", "popen"]


def _started(output: str) -> int:
    """The pid of the program that was started; it saw nothing of the recorder, and all that it was given."""
    (line,) = output.splitlines()
    word, pid = line.split()
    assert word == "started"
    return int(pid)


@pytest.mark.parametrize("name", EXECS)
def test_a_program_in_ones_own_place_is_recorded_anew(compiled: Callable[..., Path], recorded: Any, name: str) -> None:
    process = recorded.start(compiled("starters.c", "-lutil"), "self", name)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert _started(output) == process.pid
    (slot,) = [slot for slot in recorded.recording(process.pid).slots if slot.how == "opened"]
    assert slot.function == "eventfd"


@pytest.mark.parametrize("name", EXECS + SPAWNS)
def test_a_child_is_recorded_if_asked_for(compiled: Callable[..., Path], recorded: Any, name: str) -> None:
    process = recorded.start(compiled("starters.c", "-lutil"), "child", name, follow=True)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    recording = recorded.recording(_started(output))
    (slot,) = [slot for slot in recording.slots if slot.function == "eventfd"]
    assert slot.how == "opened"
    assert recording.parent_pid == process.pid


@pytest.mark.parametrize("name", SHELLS)
def test_what_a_shell_starts_is_recorded_if_asked_for(compiled: Callable[..., Path], recorded: Any, name: str) -> None:
    process = recorded.start(compiled("starters.c", "-lutil"), "child", name, follow=True)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    (slot,) = [slot for slot in recorded.recording(_started(output)).slots if slot.function == "eventfd"]
    assert slot.how == "opened"


@pytest.mark.parametrize("name", ["execve", "execl", *SPAWNS, *SHELLS])
def test_a_child_is_not_recorded_if_not_asked_for(
    compiled: Callable[..., Path], recorded: Any, tmp_path: Path, name: str
) -> None:
    process = recorded.start(compiled("starters.c", "-lutil"), "child", name)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert _started(output) != process.pid
    assert [path.name for path in tmp_path.glob("*.leakline")] == [f"{process.pid}.leakline"]


@pytest.mark.parametrize("name", ["daemon", "login_tty"])
def test_streams_that_were_replaced(compiled: Callable[..., Path], recorded: Any, name: str) -> None:
    process = recorded.start(compiled("starters.c", "-lutil"), "streams", name, follow=True)
    child = _started(process.stdout.readline())
    try:
        recording = recorded.recording(child)
        streams = {slot.number: slot.function for slot in recording.slots if slot.number < 3}
        assert streams == dict.fromkeys(range(3), name)
        assert {slot.number for slot in recording.slots} == set(map(int, os.listdir(f"/proc/{child}/fd")))
    finally:
        os.kill(child, signal.SIGKILL)
