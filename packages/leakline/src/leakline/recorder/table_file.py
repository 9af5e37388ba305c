"""Reads a table file in pure Python: of this process or another one, at any moment, also after its writer was killed.

The layout is native/table_layout.h. Nothing is mapped and nothing is written: the reader costs the writer nothing, and
a file that is cut short is an error, not a SIGBUS.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from leakline.recorder.errors import TableFormatError
from leakline.recorder.process_identity import start_time_ticks

Source = Literal["opened", "accepted", "registered"]

MAGIC = b"LEAKLINE"
LAYOUT_VERSION = 1
SOURCES: dict[int, Source] = {1: "opened", 2: "accepted", 3: "registered"}
NAME_LENGTH = 112  # bytes of an owner's name

_HEADER = struct.Struct("=8s6I2QiI10Q2I256s")
_KIND_LENGTH = 16
_OWNER = struct.Struct("=4I112s")
_SLOT = struct.Struct("=6I3Q")
_HEADER_SIZE = 4096
_HIGHEST_SLOTS = 1 << 20
_SETTLED_TRIES = 16
_RECORD_TRIES = 64


class Entry(msgspec.Struct, frozen=True):
    """One open descriptor as its owner recorded it.

    `owner` is "" when not known. `opened_at_s` is on the monotonic clock (`time.monotonic()`). `inode` is that of a
    socket, else None. `generation` tells two uses of one number apart. `inherited`: the parent opened it, before this
    process was forked.
    """

    number: int
    kind: str
    owner: str
    opened_at_s: float
    tid: int
    source: Source
    generation: int
    inode: int | None = None
    inherited: bool = False


class Table(msgspec.Struct, frozen=True):
    """What a table file says at one moment.

    `settled`: no descriptor was being opened or closed meanwhile, so it is one moment for all entries; else each entry
    is right by itself, with "" for an owner that changed. `torn`: records that were being written all the time (the
    writer was killed in the middle of one): they are left out.
    """

    pid: int  # in the writer's own pid namespace
    pid_namespace: int
    start_time_ticks: int
    created_at_s: float
    live: bool  # False: closed in order
    complete: bool
    incomplete_because: str
    entries: tuple[Entry, ...]
    settled: bool
    torn: int
    changes: int
    opened: int
    closed: int
    unpublished: int
    out_of_range: int

    def written_by(self, pid: int) -> bool:
        """Whether process `pid` (of our own namespace) wrote this: same start time, and a pid that it has."""
        return self.start_time_ticks == start_time_ticks(pid) and self.pid in _pids(pid)


def _pids(pid: int) -> list[int]:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return [int(number) for number in line.split()[1:]]
    return [pid]


class _Header:
    """The header of a table file, checked."""

    def __init__(self, data: bytes, file_size: int, path: str) -> None:
        if len(data) < _HEADER_SIZE or data[:8] != MAGIC:
            raise TableFormatError(f"{path} is not a table of descriptors, or is still being made")
        fields = _HEADER.unpack_from(data)
        self.version, header_size, owner_size, self.owner_count, slot_size, self.slot_count = fields[1:7]
        self.owners_offset, self.slots_offset, self.pid, self.state, self.start_time_ticks, self.created_at_ns = fields[
            7:13
        ]
        self.changes, self.owner_bound, self.slot_bound, self.opened, self.closed = fields[13:18]
        self.unpublished, self.out_of_range, self.pid_namespace, kind_count, self.complete = fields[18:23]
        self.incomplete_because = fields[23].split(b"\0")[0].decode("utf-8", "replace")
        if (self.version, header_size, owner_size, slot_size) != (
            LAYOUT_VERSION,
            _HEADER_SIZE,
            _OWNER.size,
            _SLOT.size,
        ):
            raise TableFormatError(
                f"{path} has layout {self.version}; this leakline reads {LAYOUT_VERSION}",
                "use the leakline that is installed beside the program that wrote it",
            )
        bounds = self.owner_bound <= self.owner_count and self.slot_bound <= self.slot_count <= _HIGHEST_SLOTS
        owners_end = self.owners_offset + self.owner_count * owner_size
        slots_end = self.slots_offset + self.slot_count * slot_size
        if not bounds or kind_count > 64 or max(owners_end, slots_end) > file_size:
            raise TableFormatError(f"{path} is damaged: its sizes do not fit together")
        kinds = data[_HEADER.size : _HEADER.size + kind_count * _KIND_LENGTH]
        self.kinds = [
            kinds[start : start + _KIND_LENGTH].split(b"\0")[0].decode("ascii", "replace")
            for start in range(0, len(kinds), _KIND_LENGTH)
        ]


def _section(file: int, record: struct.Struct, offset: int, count: int) -> tuple[list[tuple[int, ...] | None], int]:
    """All records of one section, each whole, and how many were never seen whole (None in their place).

    A record is whole when two reads of it agree and its sequence, the first field, is even.
    """
    first, second = (os.pread(file, count * record.size, offset) for _ in range(2))
    if len(first) != count * record.size or len(second) != len(first):
        raise TableFormatError("the file became shorter while it was read")
    rows: list[tuple[int, ...] | None] = list(record.iter_unpack(first))
    suspects = [index for index, row in enumerate(rows) if row is None or row[0] & 1]
    if first != second:
        size = record.size
        starts = range(0, len(first), size)
        suspects += [start // size for start in starts if first[start : start + size] != second[start : start + size]]
    torn = 0
    for index in set(suspects):
        rows[index] = _record(file, record, offset + index * record.size)
        torn += rows[index] is None
    return rows, torn


def _record(file: int, record: struct.Struct, offset: int) -> tuple[int, ...] | None:
    for _ in range(_RECORD_TRIES):
        first, second = (os.pread(file, record.size, offset) for _ in range(2))
        row = record.unpack(first)
        if first == second and not row[0] & 1:
            return row
    return None


def _entries(header: _Header, owners: list[tuple[int, ...] | None], slots: list[tuple[int, ...] | None]) -> list[Entry]:
    names: dict[int, str] = {}
    for number, owner in enumerate(owners):
        if owner and owner[1]:
            name: bytes = owner[4]  # type: ignore[assignment]  # the last field is text
            names[number] = name[: owner[3]].decode("utf-8", "replace")
    entries = []
    for number, slot in enumerate(slots):
        if not slot or not slot[1]:
            continue
        _, kind, owner_number, tid, source, _, generation, opened_at_ns, inode = slot
        entries.append(
            Entry(
                number=number,
                kind=header.kinds[kind] if kind < len(header.kinds) else "other",
                owner=names.get(owner_number, ""),
                opened_at_s=opened_at_ns / 1e9,
                tid=tid,
                source=SOURCES.get(source, "registered"),
                generation=generation,
                inode=inode or None,
            )
        )
    return entries


def _read_header(file: int, path: str) -> _Header:
    return _Header(os.pread(file, _HEADER_SIZE, 0), os.fstat(file).st_size, path)


def read_table(path: str | os.PathLike[str]) -> Table:
    """Reads a table file. Holds one descriptor of this process meanwhile, and none afterwards.

    Raises OSError (no such file, no permission) and TableFormatError. Its time is bounded however busy the writer is.
    """
    name = os.fspath(path)
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _ in range(_SETTLED_TRIES):
            header = _read_header(file, name)
            owners, torn_owners = _section(file, _OWNER, header.owners_offset, header.owner_bound)
            slots, torn_slots = _section(file, _SLOT, header.slots_offset, header.slot_bound)
            after = _read_header(file, name)
            settled = header.changes == after.changes and not header.changes & 1
            if settled:
                break
        else:  # a name that changed meanwhile may not be the one that a slot meant
            again, _ = _section(file, _OWNER, header.owners_offset, header.owner_bound)
            owners = [owner if owner == later else None for owner, later in zip(owners, again, strict=True)]
    finally:
        os.close(file)
    return Table(
        pid=after.pid,
        pid_namespace=after.pid_namespace,
        start_time_ticks=after.start_time_ticks,
        created_at_s=after.created_at_ns / 1e9,
        live=after.state == 1,
        complete=bool(after.complete),
        incomplete_because=after.incomplete_because,
        entries=tuple(_entries(after, owners, slots)),
        settled=settled,
        torn=torn_owners + torn_slots,
        changes=after.changes,
        opened=after.opened,
        closed=after.closed,
        unpublished=after.unpublished,
        out_of_range=after.out_of_range,
    )
