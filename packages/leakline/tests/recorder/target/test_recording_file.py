"""Reading a recording from another process: while 16 threads write it, after SIGKILL, when it is damaged or huge."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leakline.recorder import Recording, RecordingFormatError, find_recording, read_recording
from leakline.recorder.recording_file import HOWS
from leakline.recorder.recording_layout import SLOT, VERSION

NATIVE = Path(__file__).parents[3] / "src/leakline/recorder/target"
FUNCTIONS = ("open", "socket", "eventfd")
ROUNDS = int(os.environ.get("LEAKLINE_HOLD_ROUNDS", "1"))  # `make hold-recording` has more

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def exercise() -> str:
    subprocess.run(["make", "--silent", "-C", str(NATIVE), "build/exercise"], check=True)
    return str(NATIVE / "build/exercise")


@pytest.fixture
def start(exercise: str) -> Iterator[Start]:
    """`start(mode, path, number)` runs the exercise and waits until it is ready."""
    running: list[subprocess.Popen[str]] = []

    def run(mode: str, path: Path, number: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [exercise, mode, str(path), str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def check_consistent(recording: Recording) -> None:
    """Whatever fields belong together are of one and the same write."""
    for slot in recording.slots:
        if slot.how == "older":
            continue
        number = slot.number
        expected = (HOWS[1 + number % 4], FUNCTIONS[number % 3], number + 7)
        assert (slot.how, slot.function, slot.related) == expected
        assert recording.stacks[slot.stack].native[3] == number
        assert slot.opened_at_s >= recording.began_at_s


def test_a_reader_sees_whole_records_while_16_threads_write(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "churn.leakline"
    writer = start("churn", path, 0)
    opened = read_recording(path).opened
    changing = reads = 0
    deadline = time.monotonic() + 60 * ROUNDS
    while reads < 40 * ROUNDS or changing <= 20 * ROUNDS:  # on a busy machine the writer gets its turn now and then
        assert time.monotonic() < deadline, f"the writer wrote between {changing} of {reads} reads"
        reads += 1
        recording = read_recording(path)
        check_consistent(recording)
        assert (recording.live, recording.pid, recording.torn) == (True, writer.pid, 0)
        changing += recording.opened > opened
        opened = recording.opened


def test_the_counts_are_exact_in_the_end(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "exact.leakline"
    writer = start("churn", path, 20_000 * ROUNDS)
    assert writer.stdout is not None
    opened = int(writer.stdout.readline().split()[1])
    recording = read_recording(path)
    check_consistent(recording)
    slots = [slot for slot in recording.slots if slot.how != "older"]
    assert recording.opened == opened
    assert recording.opened - recording.closed == len(slots)
    assert (recording.skipped, recording.torn, recording.stacks_full, recording.out_of_range) == (0, 0, 0, 0)
    alive = Counter(slot.stack for slot in slots)
    for stack in recording.stacks.values():
        assert stack.opened - stack.closed == stack.alive == alive[stack.number]
    assert sum(stack.opened for stack in recording.stacks.values()) == opened
    numbers = [stack.native[3] for stack in recording.stacks.values() if stack.opened]
    assert len(numbers) == len(set(numbers)), "one stack has two numbers"


def test_a_recording_can_be_read_after_its_writer_was_killed(start: Start, tmp_path: Path) -> None:
    for attempt in range(5 * ROUNDS):
        path = tmp_path / f"{attempt}.leakline"
        writer = start("churn", path, 0)
        assert find_recording(writer.pid) == path
        deadline = time.monotonic() + 20
        while read_recording(path).opened < 3000 * (attempt % 5 + 1):
            assert time.monotonic() < deadline
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        recording = read_recording(path)
        check_consistent(recording)
        assert recording.torn <= 16  # what each thread was writing
        assert recording.opened >= 3000 * (attempt % 5 + 1)
        assert not recording.live
        assert recording.ended_at_s is None
        assert find_recording(writer.pid) is None


def test_damaged_files_are_typed_errors(start: Start, tmp_path: Path) -> None:
    whole = tmp_path / "whole.leakline"
    writer = start("fill", whole, 100)
    writer.kill()
    writer.wait()
    size = whole.stat().st_size
    path = tmp_path / "damaged.leakline"
    subprocess.run(["cp", "--sparse=always", str(whole), str(path)], check=True)
    for shorter in (size - 1, size // 2, 100_000, 4096, 4095, 8, 0):
        os.truncate(path, shorter)
        with pytest.raises(RecordingFormatError) as raised:
            read_recording(path)
        assert raised.value.hint
    subprocess.run(["cp", "--sparse=always", str(whole), str(path)], check=True)
    with open(path, "r+b", buffering=0) as file:
        header = file.read(4096)
        file.seek(8)
        file.write(b"\x63")
        with pytest.raises(RecordingFormatError, match=f"layout 99; this leakline reads {VERSION}"):
            read_recording(path)
        generator = random.Random(1)
        for _ in range(300):
            position = generator.randrange(8, 1300)
            file.seek(0)
            file.write(header[:position] + generator.randbytes(4) + header[position + 4 :])
            try:
                read_recording(path)
            except RecordingFormatError as error:
                assert str(path) in str(error)  # noqa: PT017 - either outcome is right


def test_a_file_that_never_was_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "notes.leakline"
    path.write_bytes(b"notes" * 2000)
    with pytest.raises(RecordingFormatError, match="not a recording"):
        read_recording(path)


def test_many_slots_are_read_in_no_time(start: Start, tmp_path: Path) -> None:
    """A million slots, of which a few are used, far apart; and 15 000 that are."""
    path = tmp_path / "many.leakline"
    start("fill", path, 15_000).kill()
    before = time.process_time()
    recording = read_recording(path)
    assert time.process_time() - before < 1
    assert sum(slot.how == "opened" for slot in recording.slots) == 15_000
    with open(path, "r+b", buffering=0) as file:
        header = bytearray(file.read(4096))
        slots_at = 24 + 7 * 16
        offset, size, _ = struct.unpack_from("=Q2I", header, slots_at)
        struct.pack_into("=I", header, slots_at + 12, 1 << 20)
        file_size = offset + size * (1 << 20)
        struct.pack_into("=Q", header, 16, file_size)
        bound = header.index(struct.pack("=I", 16_000), slots_at + 16)
        struct.pack_into("=I", header, bound, 1 << 20)
        file.truncate(file_size)
        file.seek(0)
        file.write(header)
        file.seek(offset + size * 1_048_575)
        file.write(SLOT.pack(2, 1, 1, 1, -1, 77, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0))
    before = time.process_time()
    recording = read_recording(path)
    assert time.process_time() - before < 1
    assert (recording.slots[-1].number, recording.slots[-1].tid) == (1_048_575, 77)


@pytest.mark.root
def test_a_full_file_system_is_counted_and_not_a_signal(exercise: str, tmp_path: Path) -> None:
    """Writing to a hole of a full tmpfs would be SIGBUS. Where not even the header has room, nobody can read it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "leakline-test", str(tmp_path)], check=True)
    try:
        for name in ("first", "second"):
            path = tmp_path / f"{name}.leakline"
            done = subprocess.run(
                [exercise, "fill", str(path), "15000"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            if name == "first":
                recording = read_recording(path)
                (tmp_path / "filler").write_bytes(bytes(os.statvfs(tmp_path).f_bavail * 4096))
        assert not path.exists()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert recording.unstored > 0
    assert 0 < sum(slot.how == "opened" for slot in recording.slots) < 15_000


def test_reading_leaves_no_descriptor_behind(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "left.leakline"
    writer = start("fill", path, 10)
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        read_recording(path)
        find_recording(writer.pid)
    assert os.listdir("/proc/self/fd") == before
