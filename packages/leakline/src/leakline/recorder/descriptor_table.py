"""The table of those descriptors of this process that one library (libzmq, say) and its Python caller opened.

Facts that force its shape: looking at /proc cannot tell libzmq's descriptors from those that other threads open (a
number is reused at once), so libzmq's own imports are hooked; and a forked child must know what it inherited, so the
records are in private memory that the kernel copies at the moment of the fork (native/descriptor_table.h).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from leakline.recorder.errors import ClosedTableError, TableError
from leakline.recorder.library import CCounters, CEntry, CHooked, library
from leakline.recorder.table_file import NAME_LENGTH, SOURCES, Entry, read_table

_LIST_ROOM = 64


class Hooked(msgspec.Struct, frozen=True):
    """What hooking did. `error` is the errno of a slot that could not be written, else None."""

    libraries: int
    slots: int
    functions: frozenset[str]
    error: int | None = None


class Counters(msgspec.Struct, frozen=True):
    """Since the table was made.

    `unpublished`: records that other processes cannot see; `out_of_range`: numbers too high for the table.
    In a forked child, of a table that closes there: `closed_in_child`, and `strange_in_child`, numbers that
    were no longer what had been recorded, and were left alone.
    """

    changes: int
    opened: int
    closed: int
    unpublished: int
    out_of_range: int
    closed_in_child: int = 0
    strange_in_child: int = 0


class DescriptorTable:
    """Records of descriptors, written by hooks and by the caller, readable by other processes through a file.

    Any thread may call any method. After a fork the child's copy goes on privately (the file is the parent's): it
    lists what was inherited, and takes records; make another table to publish. At most 8 tables a process.
    """

    def __init__(self, handle: int, path: Path | None) -> None:
        self._library = library()
        self._handle: int | None = handle
        self._owners: dict[str, int] = {}
        self._pid = os.getpid()
        self.path = path

    @classmethod
    def create(cls, path: Path | None = None) -> DescriptorTable:
        """Makes a table, and its file, which must not exist. None: nobody else can read it.

        Raises LibraryMissingError, and TableError (from an OSError: the file exists, no permission, file system full).
        """
        handle = library().table_create(os.fsencode(path) if path else None)
        if not handle:
            number = ctypes.get_errno()
            where = f" {path}" if path else ""
            reason = "this process has 8 tables" if number == errno.ENFILE and not path else os.strerror(number)
            raise TableError(f"the table{where} could not be made: {reason}") from OSError(number, reason, str(path))
        return cls(handle, path)

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that made the table."""
        return self._pid != os.getpid()

    def hook_library(self, name: str) -> Hooked:
        """Lets every loaded library whose file name contains `name` record into this table what it opens from now on.

        A second call also finds copies that were loaded since. Never raises: look at `functions` for what is hooked.
        """
        handle = self._open_handle()
        found = CHooked()
        self._library.hook_library(os.fsencode(name), ctypes.byref(found))
        if found.libraries:  # else what hooks there are go on recording for whom they did
            self._library.hook_target(handle)
        functions = set()
        for index in range(found.functions.bit_length()):
            if found.functions >> index & 1:
                functions.add(self._library.hook_name(index).decode("ascii"))
        return Hooked(found.libraries, found.slots, frozenset(functions), found.error if found.failed else None)

    @contextmanager
    def standby(self, *, eventfds: int = 0, epolls: int = 0) -> Iterator[None]:
        """Opens so many descriptors first (8 of a sort at most), and lets hooked libraries take them inside, in this
        thread: their calls of eventfd(0, EFD_CLOEXEC) and epoll_create1(EPOLL_CLOEXEC) then cannot fail.

        For libraries that abort when they run out half-way. What is not taken is closed at the end. It does not nest.
        Raises OSError, before anything is begun. What is taken belongs to the owner at the beginning.
        """
        if self._library.standby_fill(eventfds, epolls) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        try:
            yield
        finally:
            self._library.standby_end()

    # --- owners

    @contextmanager
    def owner(self, name: str) -> Iterator[int]:
        """What hooked libraries open in this thread, inside, belongs to `name`. Gives the owner's number.

        It nests. Do not `await` inside: the thread would go on with other tasks.
        """
        number = self.owner_number(name)
        before = self._library.owner_use(number)
        try:
            yield number
        finally:
            self._library.owner_use(before)

    def owner_number(self, name: str) -> int:
        """The number of an owner, made at first use; 0 (not known) when all 4095 are in use.

        Names are cut at 112 bytes.
        """
        number = self._owners.get(name)
        if number is not None:
            return number
        number = self._add_owner(name)
        if number == 0:
            return 0
        kept = self._owners.setdefault(name, number)  # another thread may have been faster
        if kept != number:
            self._library.owner_release(self._open_handle(), number)
        return kept

    def _add_owner(self, name: str) -> int:
        data = name.encode("utf-8", "replace")[:NAME_LENGTH].decode("utf-8", "ignore").encode()
        return int(self._library.owner_add(self._open_handle(), data, len(data)))

    @contextmanager
    def _named(self, name: str) -> Iterator[int]:
        """A number for `name`. One that nobody holds lives as long as the records that get it inside."""
        held = self._owners.get(name)
        number = held or (self._add_owner(name) if name else 0)
        try:
            yield number
        finally:
            if number and held is None:
                self._library.owner_release(self._open_handle(), number)

    def release_owner(self, name: str) -> None:
        """Gives the owner's number free once its last descriptor is closed; until then they keep the name."""
        number = self._owners.pop(name, None)
        if number is not None and self._handle is not None:
            self._library.owner_release(self._handle, number)

    # --- records

    def assign(self, number: int, owner: str, generation: int = 0) -> bool:
        """Names the owner of a socket that a hooked library opened.

        False, and nothing done, when the number is not one (any more), or is of another generation (unless 0).
        """
        handle = self._open_handle()
        with self._named(owner) as owner_number:
            return bool(self._library.table_assign(handle, number, owner_number, generation))

    def put(self, number: int, kind: str, owner: str = "") -> bool:
        """Records a descriptor that the caller opened. False when its number is too high for the table."""
        handle = self._open_handle()
        kinds = self._library.kinds
        code = kinds.index(kind if kind in kinds[1:] else "other")
        with self._named(owner) as owner_number:
            return bool(self._library.table_put(handle, number, code, owner_number) == 0)

    def open_socket(self, family: int, type_: int) -> int:
        """A new socket's number, opened and recorded (for the owner of `with owner(…)`) in one step, as by a hooked
        library: whoever forks, at whatever moment, the child has its record too. Raises OSError.
        """
        number = int(self._library.socket(family, type_, 0))
        if number < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return number

    def close_number(self, number: int) -> None:
        """Closes a descriptor and removes its record in one step. Raises OSError."""
        if self._library.close(number) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def forget(self, number: int) -> bool:
        """Removes a record; call it before the descriptor is closed. False if there was none."""
        return bool(self._library.table_forget(self._open_handle(), number))

    def entries(self) -> list[Entry]:
        """All records at one moment, in order of their number."""
        handle = self._open_handle()
        room = _LIST_ROOM
        while True:
            rows = (CEntry * room)()
            count = self._library.table_list(handle, rows, room)
            if count <= room:
                break
            room = count + _LIST_ROOM
        names: dict[int, str] = {0: ""}
        return [self._entry(handle, rows[index], names) for index in range(count)]

    def _entry(self, handle: int, row: CEntry, names: dict[int, str]) -> Entry:
        if row.owner not in names:
            room = ctypes.create_string_buffer(NAME_LENGTH)
            length = self._library.owner_name(handle, row.owner, room, NAME_LENGTH)
            names[row.owner] = room.raw[:length].decode("utf-8", "replace")
        return Entry(
            number=row.number,
            kind=self._library.kinds[row.kind],
            owner=names[row.owner],
            opened_at_s=row.opened_at_ns / 1e9,
            tid=row.tid,
            source=SOURCES[row.source],
            generation=row.generation,
            inode=row.inode or None,
            inherited=bool(row.inherited),
        )

    def counters(self) -> Counters:
        """Odd `changes`: a descriptor is being opened or closed at this moment."""
        found = CCounters()
        self._library.table_counters(self._open_handle(), ctypes.byref(found))
        return Counters(*(getattr(found, field[0]) for field in CCounters._fields_))

    def set_complete(self, complete: bool, because: str = "") -> None:
        """Says in the file whether the table holds every descriptor that it should, and if not, why."""
        data = because.encode("utf-8", "replace")[:255].decode("utf-8", "ignore").encode()
        self._library.table_complete(self._open_handle(), complete, data)

    # --- fork

    def close_in_children(self) -> None:
        """From now on a child of fork() closes, by number, what the table holds, also when C code forks it, before any
        Python runs there. The parent's descriptors are not touched. In a child made by clone() or _Fork(), which tell
        nobody, it happens at the first use of any table, and to sockets alone, which can be told by their inodes.
        """
        self._library.table_close_in_child(self._open_handle())

    # --- end

    def close(self) -> None:
        """Stops recording, marks the file closed and removes it (in a forked child: leaves it alone). Idempotent."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        self._library.hook_target_end(handle)
        self._library.table_close(handle)
        if self.path and not self.forked:
            self.path.unlink(missing_ok=True)

    def _open_handle(self) -> int:
        if self._handle is None:
            raise ClosedTableError("the table of descriptors was closed", "make another with DescriptorTable.create()")
        return self._handle


__all__ = ["Counters", "DescriptorTable", "Entry", "Hooked", "read_table"]
