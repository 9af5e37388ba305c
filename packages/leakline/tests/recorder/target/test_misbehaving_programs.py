"""Programs that treat descriptors badly do what they do without the recorder, and it tells what that was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leakline.recorder import Recording


class Outcome(msgspec.Struct):
    """What a program said (label -> function and line), and what the recorder says of it."""

    told: dict[str, tuple[str, int]]
    recording: Recording
    place: Callable[[int], tuple[str, int]]  # of a stack's innermost frame


def _run(process: subprocess.Popen[str]) -> list[str]:
    """What a program prints before it waits."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        if line == "ready\n":
            return lines
        lines.append(line)
    raise AssertionError(lines)


def _plainly(program: Path, name: str) -> list[str]:
    pipe = subprocess.PIPE
    with subprocess.Popen([program, name], stdin=pipe, stdout=pipe, text=True) as process:
        lines = _run(process)
        process.communicate("")
        assert process.returncode == 0
    return lines


@pytest.fixture
def outcome(compiled: Callable[..., Path], recorded: Any, places: Any) -> Callable[[str], Outcome]:
    """Runs a program of misbehave.c. What is open now and what the recording says is open are the same."""

    def run(name: str) -> Outcome:
        program = compiled("misbehave.c", "-pthread")
        process = recorded.start(program, name)
        lines = _run(process)
        open_now = {int(number) for number in os.listdir(f"/proc/{process.pid}/fd")}
        recording = recorded.recording(process.pid)
        _, errors = process.communicate("")
        assert (process.returncode, errors) == (0, "")
        assert lines == _plainly(program, name)
        assert {slot.number for slot in recording.slots} == open_now
        assert recording.opened - recording.closed <= len(open_now)
        told = {words[0]: (words[1], int(words[2])) for words in map(str.split, lines)}

        def place(stack: int) -> tuple[str, int]:
            found: list[tuple[str, int]] = places(recording, program, recording.stacks[stack].native[:1])
            return found[0]

        for slot in recording.slots:
            if slot.stack:
                assert slot.function
                assert place(slot.stack)
        return Outcome(told, recording, place)

    return run


@pytest.mark.parametrize(
    "name",
    [
        *("close_all_by_loop", "close_all_by_range", "close_all_from", "stream_that_cannot_be_written"),
        *("vfork_child_that_closes", "clone_child_that_closes", "threads", "handlers", "cancellation"),
    ],
)
def test_nothing_is_wrong_and_what_is_open_has_its_line(outcome: Callable[[str], Outcome], name: str) -> None:
    seen = outcome(name)
    assert seen.recording.wrong_closes == ()
    newest = max(seen.recording.slots, key=lambda slot: slot.generation)
    if newest.stack and "kept" in seen.told and newest.function == "eventfd":
        assert seen.place(newest.stack) == seen.told["kept"]


def test_a_handler_that_jumps_out_of_a_call_does_not_end_the_recording_of_its_thread(
    outcome: Callable[[str], Outcome],
) -> None:
    seen = outcome("jumps_out_of_calls")
    assert seen.recording.skipped > 0
    stacked = {seen.place(slot.stack) for slot in seen.recording.slots if slot.stack}
    assert stacked == {seen.told[label] for label in ("kept", "deep", "last")}


@pytest.mark.parametrize("name", ["double_close", "double_close_of_a_stream"])
def test_a_double_close_has_three_stacks(outcome: Callable[[str], Outcome], name: str) -> None:
    seen = outcome(name)
    (wrong,) = seen.recording.wrong_closes
    assert (wrong.error, wrong.kind) == (errno.EBADF, "nothing-open")
    stacks = {"again": wrong.stack, "close": wrong.earlier_close_stack, "open": wrong.open_stack}
    assert {label: seen.place(stack) for label, stack in stacks.items()} == seen.told


def test_the_first_call_that_finds_no_room_is_kept(outcome: Callable[[str], Outcome]) -> None:
    seen = outcome("exhaustion")
    exhausted = seen.recording.exhausted
    assert (exhausted.count, exhausted.error) == (2, errno.EMFILE)
    assert seen.place(exhausted.stack)[0] == "exhaustion"


def test_a_socket_keeps_why_bind_and_connect_failed(outcome: Callable[[str], Outcome]) -> None:
    seen = outcome("failed_sockets")
    errors = {
        seen.place(slot.stack): (slot.bind_error, slot.connect_error) for slot in seen.recording.slots if slot.stack
    }
    expected = {"connect": (0, errno.ECONNREFUSED), "bind": (errno.EADDRNOTAVAIL, 0)}
    assert errors == {seen.told[label]: pair for label, pair in expected.items()}


@pytest.mark.parametrize("order", ["RECORDER:{}", "{}:RECORDER"])
def test_calls_come_before_any_constructor_ran(compiled: Callable[..., Path], recorded: Any, order: str) -> None:
    library = compiled("early_calls.c", "-shared", "-fPIC")
    program = compiled("misbehave.c", "-pthread")
    process = recorded.start(program, "double_close", preload=order.format(library))
    assert _run(process) == _plainly(program, "double_close")
    recording = recorded.recording(process.pid)
    assert len(recording.wrong_closes) == 1
    assert {slot.number for slot in recording.slots} == set(map(int, os.listdir(f"/proc/{process.pid}/fd")))


FOREIGN_CLOSE = """
    import os
    import zmq
    before = set(os.listdir("/proc/self/fd"))
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    own = [int(number) for number in set(os.listdir("/proc/self/fd")) - before]
    mailbox = socket.getsockopt(zmq.FD)
    assert mailbox in own
    print(mailbox, flush=True)
    os.close(mailbox)
    socket.close()
    context.term()
"""


def test_closing_a_descriptor_of_libzmq_is_told_also_after_its_abort(recorded: Any) -> None:
    """libzmq aborts when one of its calls answers EBADF: what was done is in the file before."""
    process = recorded.start(sys.executable, "-c", textwrap.dedent(FOREIGN_CLOSE))
    output, errors = process.communicate()
    assert process.returncode == -6, errors
    recording = recorded.recording(process.pid)
    (wrong, *_) = recording.wrong_closes
    assert (wrong.number, wrong.kind) == (int(output), "library-owner")
    opener = recording.stacks[wrong.open_stack]
    assert "libzmq" in Path(recording.libraries[opener.libraries[0]].path).name
    closer = recording.stacks[wrong.stack]
    assert recording.codes[closer.python[0].code].file == "<string>"
