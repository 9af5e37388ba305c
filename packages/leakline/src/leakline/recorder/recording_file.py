"""Reads a recording in pure Python: of a running process at any moment, also after it was killed.

The layout is target/recording_layout.h. Nothing is mapped and nothing is written: the reader costs the writer nothing,
and a file that is cut short is an error, not a SIGBUS.
"""

from __future__ import annotations

import os
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from leakline.recorder.errors import RecordingFormatError
from leakline.recorder.process_identity import pid_namespace, start_time_ticks
from leakline.recorder.recording import (
    Code,
    Exhausted,
    How,
    Library,
    PythonFrame,
    Recording,
    Slot,
    Stack,
    WrongClose,
    WrongCloseKind,
)
from leakline.recorder.recording_layout import (
    FUNCTION,
    HEADER_SIZE,
    RECORDS,
    SLOT,
    WRONG_CLOSE,
    Header,
    Section,
    text_of,
)

HOWS: Final[dict[int, How]] = {
    1: "opened",
    2: "accepted",
    3: "duplicated",
    4: "received",
    5: "older",
    6: "inherited",
}
_WRONG_CLOSES: Final[dict[int, WrongCloseKind]] = {1: "nothing-open", 2: "other-owner", 3: "library-owner"}

SETTLE_S: Final = 1.0  # how long a record that is being written is waited for


class _File:
    """Reads parts of one file; the parts that have no storage are zeros, and are not read."""

    def __init__(self, number: int, path: str) -> None:
        self.number, self.path = number, path

    def read(self, offset: int, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:  # one read gives at most 2 GiB, and fewer where the file ends
            piece = os.pread(self.number, size - len(data), offset + len(data))
            if not piece:
                raise RecordingFormatError(f"{self.path} became shorter while it was read", "record again")
            data += piece
        return bytes(data)

    def stored(self, offset: int, size: int, unit: int) -> Iterator[tuple[int, int]]:
        """Parts of a section that have storage, as (offset, size), in whole records of `unit` bytes."""
        at, end = offset, offset + size
        while at < end:
            try:
                start = max(at, os.lseek(self.number, at, os.SEEK_DATA))
            except OSError:  # ENXIO: only holes from here on
                return
            if start >= end:
                return
            stop = min(end, os.lseek(self.number, start, os.SEEK_HOLE))
            first = (start - offset) // unit * unit
            last = min(-(-(stop - offset) // unit) * unit, size)
            first = max(first, at - offset)
            if first < last:
                yield offset + first, last - first
            at = max(offset + last, start + 1)


def _records(file: _File, record: struct.Struct, section: Section, bound: int) -> tuple[dict[int, Any], set[int]]:
    """All records that are not empty, each whole, by number; and the numbers of those that were being written.

    A record is whole when two reads of it agree and its sequence, the first field, is even.
    """
    rows: dict[int, Any] = {}
    unsettled = set()
    size = record.size
    for offset, length in file.stored(section.offset, bound * size, size):
        first, second = file.read(offset, length), file.read(offset, length)
        base, changed = (offset - section.offset) // size, first != second
        for index, row in enumerate(record.iter_unpack(first)):
            start = index * size
            if row[0] & 1 or (changed and first[start : start + size] != second[start : start + size]):
                unsettled.add(base + index)
            elif row[0]:
                rows[base + index] = row
    return rows, unsettled


def _settle(
    file: _File, record: struct.Struct, section: Section, rows: dict[int, Any], unsettled: set[int], until: float
) -> None:
    """Reads those records again until each was seen whole: a thread that lost its processor in the middle of a write
    needs its next turn. What is not whole at `until` (monotonic seconds) stays in `unsettled`.
    """
    while unsettled:
        for number in list(unsettled):
            offset = section.offset + number * record.size
            first, second = (file.read(offset, record.size) for _ in range(2))
            row = record.unpack(first)
            if first == second and not row[0] & 1:
                rows[number] = row
                unsettled.remove(number)
        if time.monotonic() >= until:
            return
        if unsettled:
            time.sleep(0.001)


def _ready(file: _File, record: struct.Struct, section: Section, bound: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Records that only grow, with their numbers, which begin with 1; those that are not written yet are left out."""
    for offset, length in file.stored(section.offset, bound * record.size, record.size):
        base = (offset - section.offset) // record.size + 1
        for index, row in enumerate(record.iter_unpack(file.read(offset, length))):
            if row[0] == 1:
                yield base + index, row


class _Reader:
    """One reading of one file. Slots come first: what they refer to was written before them and stays."""

    def __init__(self, file: _File) -> None:
        self.file = file
        self.header = self.read_header()
        sections, header = self.header.sections, self.header
        names = file.read(sections["functions"].offset, sections["functions"].size * sections["functions"].count)
        self.functions = [text_of(name) for (name,) in FUNCTION.iter_unpack(names)]
        until = time.monotonic() + (SETTLE_S if _is_live(header) else 0)
        slots, wrong = sections["slots"], sections["wrong_closes"]
        self.slots, torn = _records(file, SLOT, slots, header.slot_bound)
        self.wrong, torn_wrong = _records(file, WRONG_CLOSE, wrong, wrong.count)
        _settle(file, SLOT, slots, self.slots, torn, until)
        _settle(file, WRONG_CLOSE, wrong, self.wrong, torn_wrong, until)
        self.torn = len(torn) + len(torn_wrong)
        self.header = self.read_header()
        self.text = file.read(sections["text"].offset, self.header.text_used)
        self.frames = file.read(sections["frames"].offset, self.header.frames_used)

    def read_header(self) -> Header:
        data = os.pread(self.file.number, HEADER_SIZE, 0)
        return Header(data, os.fstat(self.file.number).st_size, self.file.path)

    def damaged(self, what: str) -> RecordingFormatError:
        return RecordingFormatError(f"{self.file.path} is damaged: {what}", "record again")

    def function(self, number: int) -> str:
        return self.functions[number] if number < len(self.functions) else ""

    def piece(self, start: int, length: int) -> bytes:
        if start + length > len(self.text):
            raise self.damaged("a text lies outside its section")
        return self.text[start : start + length]

    def rows(self, name: str, bound: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        return _ready(self.file, RECORDS[name], self.header.sections[name], bound)

    def libraries(self) -> Iterator[Library]:
        for number, row in self.rows("libraries", self.header.library_bound):
            _, unloaded, start, end, bias, generation, path, path_length, id_length, build_id = row
            name = os.fsdecode(self.piece(path, path_length))
            yield Library(number, name, start, end, bias, build_id[:id_length], generation, bool(unloaded))

    def codes(self) -> Iterator[Code]:
        for number, row in self.rows("codes", self.header.code_bound):
            _, first_line, _, start, file_length, name_length, lines_length, version, flags, _ = row
            text = self.piece(start, file_length + name_length + lines_length)
            file = _decoded(text[:file_length], flags, 1)
            name = _decoded(text[file_length : file_length + name_length], flags, 2)
            yield Code(number, file, name, first_line, version, text[file_length + name_length :])

    def stacks(self, alive: Counter[int]) -> Iterator[Stack]:
        for number, row in self.rows("stacks", self.header.stack_bound):
            _, flags, _, start, native_count, python_count, _, _, _, opened, closed, first_at, last_at = row
            python_at = start + native_count * 8 + (native_count * 2 + 7 & ~7)
            if python_at + python_count * 8 > len(self.frames):
                raise self.damaged("a stack lies outside its section")
            python = struct.unpack_from("=" + "Ii" * python_count, self.frames, python_at)
            yield Stack(
                number=number,
                native=struct.unpack_from(f"={native_count}Q", self.frames, start),
                libraries=struct.unpack_from(f"={native_count}H", self.frames, start + native_count * 8),
                python=tuple(
                    PythonFrame(code, value >> 1, bool(value & 1))
                    for code, value in zip(python[::2], python[1::2], strict=True)
                ),
                flags=flags,
                opened=opened,
                closed=closed,
                alive=alive[number],
                first_at_s=first_at / 1e9,
                last_at_s=last_at / 1e9,
            )

    def open_slots(self) -> Iterator[Slot]:
        for number, row in self.slots.items():
            _, how, function, stack, related, tid, bind_error, connect_error, generation, opened_at = row[:10]
            if how:
                yield Slot(
                    number=number,
                    how=HOWS.get(how, "opened"),
                    function=self.function(function),
                    stack=stack,
                    related=None if related < 0 else related,
                    tid=tid,
                    opened_at_s=opened_at / 1e9,
                    generation=generation,
                    bind_error=bind_error,
                    connect_error=connect_error,
                )

    def closed_at_s(self) -> dict[int, float]:
        return {number: row[12] / 1e9 for number, row in self.slots.items() if not row[1] and row[12]}

    def wrong_closes(self) -> list[WrongClose]:
        found = []
        for row in self.wrong.values():
            _, number, kind, error, function, stack, tid, close_stack, close_tid, open_stack, open_tid, _ = row[:12]
            if kind not in _WRONG_CLOSES:  # 0: taken back, the program closes whatever there may be
                continue
            at, closed_at, opened_at = (each / 1e9 for each in row[12:])
            found.append(
                WrongClose(
                    number=number,
                    error=error,
                    function=self.function(function),
                    stack=stack,
                    tid=tid,
                    at_s=at,
                    earlier_close_stack=close_stack,
                    earlier_close_tid=close_tid,
                    earlier_close_at_s=closed_at,
                    open_stack=open_stack,
                    open_tid=open_tid,
                    opened_at_s=opened_at,
                    kind=_WRONG_CLOSES[kind],
                )
            )
        return sorted(found, key=lambda wrong: wrong.at_s)


def _decoded(data: bytes, flags: int, latin1: int) -> str:
    """Text of a code object; `latin1` is 1 for the file, 2 for the name: wider follow (target/recording.h)."""
    if flags & latin1:
        return data.decode("latin-1")
    if flags & latin1 << 2:
        return data.decode("utf-16", "replace")
    if flags & latin1 << 4:
        return data[: len(data) // 4 * 4].decode("utf-32", "replace")
    return data.decode("utf-8", "surrogateescape")


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Reads a recording. Holds one descriptor of this process meanwhile, and none afterwards.

    Raises OSError (no such file, no permission) and RecordingFormatError. Its time is bounded, however busy the
    writer is.
    """
    name = os.fspath(path)
    number = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        reader = _Reader(_File(number, name))
        header = reader.header
        slots = tuple(reader.open_slots())
        alive = Counter(slot.stack for slot in slots)
        stacks = _by_number(reader.stacks, alive)
        codes = {code.number: code for code in reader.codes()}
        libraries = {library.number: library for library in reader.libraries()}
    finally:
        os.close(number)
    first = header.exhausted_first == 1
    stacks_full, codes_full, libraries_full, out_of_range, unstored, skipped = header.uncounted
    return Recording(
        path=name,
        pid=header.pid,
        parent_pid=header.parent_pid,
        start_time_ticks=header.start_time_ticks,
        pid_namespace=header.pid_namespace,
        mode="launched" if header.mode == 1 else "attached",
        began_at_s=header.began_at / 1e9,
        ended_at_s=header.ended_at / 1e9 if header.ended_at else None,
        live=_is_live(header),
        off_because=header.off_because if header.off else "",
        command=header.command.strip(),
        slots=slots,
        closed_at_s=reader.closed_at_s(),
        stacks=stacks,
        codes=codes,
        libraries=libraries,
        wrong_closes=tuple(reader.wrong_closes()),
        exhausted=Exhausted(header.exhausted, header.exhausted_error, header.exhausted_at / 1e9, header.exhausted_stack)
        if first
        else Exhausted(header.exhausted),
        opened=max(0, header.generation - header.marked),
        closed=header.closed,
        stacks_full=stacks_full,
        codes_full=codes_full,
        libraries_full=libraries_full,
        wrong_closes_lost=max(0, header.wrong_closes - header.sections["wrong_closes"].count),
        out_of_range=out_of_range,
        python_version=header.python_version,
        eval_ranges=header.eval_ranges,
        unstored=unstored,
        skipped=skipped,
        torn=reader.torn,
    )


def _by_number(stacks: Callable[[Counter[int]], Iterator[Stack]], alive: Counter[int]) -> dict[int, Stack]:
    return {stack.number: stack for stack in stacks(alive)}


def _is_live(header: Header) -> bool:
    """Whether the process still records: it did not end, and is there (where this pid namespace can see it)."""
    if header.ended_at or header.off:
        return False
    if header.pid_namespace != pid_namespace("self"):
        return True
    return bool(start_time_ticks(header.pid) == header.start_time_ticks)
