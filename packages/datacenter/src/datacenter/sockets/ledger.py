"""The ledger: every descriptor that datacenter or libzmq opened in this process, with kind, owner and age.

It is exact because it does not look for descriptors but sees them made: libzmq's own imports (eventfd, epoll_create1,
socket, accept4, close) are hooked by leakline's C library, before the first Context. /proc could not tell them from
those of other threads, nor name connects in flight. Where hooking is not possible the ledger says "probable", knows
only what Python registers, and everything else works as ever.

One a process. It lies in a file that other processes read (`datacenter fds PID`), also after this one was killed.
"""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import zmq

from datacenter.sockets import fork, runtime_directory
from datacenter.sockets.ledger_compare import (
    SETTLED_TRIES,
    SUFFIX,
    Comparison,
    compare,
    compare_with_proc,
    fits,
    links_of,
)
from datacenter.sockets.plain_table import PlainTable
from leakline.recorder import DescriptorTable, Entry, LibraryMissingError, RecorderError, TableError

__all__ = ["Comparison", "Ledger", "LedgerStatistics", "compare_with_proc", "open_descriptors"]

# Where libzmq is: a library of its own (the wheel's pyzmq.libs/libzmq-….so, a distribution's libzmq.so.5), or linked
# into pyzmq's extension module, when that was built so.
_LIBRARIES = ("libzmq", "zmq/backend/")
_NEEDED = ({"eventfd"}, {"socket"}, {"close"}, {"epoll_create1", "epoll_create"}, {"accept4", "accept"})


@dataclass(frozen=True)
class LedgerStatistics:
    """The ledger in figures. `opened` and `closed` count since it was opened.

    `unpublished`: entries that other processes cannot see. `out_of_range`: descriptors whose number was too high. Of
    the parent's ledger in a forked child: `closed_in_child`, and `strange_in_child`, numbers that were somebody else's.
    """

    exact: bool
    reason: str
    path: Path | None
    open: int
    by_kind: dict[str, int]
    by_owner: dict[str, int]
    opened: int
    closed: int
    unpublished: int
    out_of_range: int
    closed_in_child: int = 0
    strange_in_child: int = 0


class Ledger:
    """Made by `Ledger.open()`. Any thread may call any method.

    `exact`: every descriptor of libzmq is in it from now on; else `reason` says why not, and it is merely probable.
    `path`: the file, or None when there is none, and `unpublished` says why.

    A child of fork() has closed what was in it, by number, before any Python runs there, also when C code forked it;
    where leakline's library is not there, `close_inherited` in Python's own hook does what it can. The parent's object
    takes no entries in the child that others could see: `Ledger.open()` makes its own.
    """

    def __init__(self, directory: Path, predecessor: Ledger | None) -> None:
        self._epoch = fork.current()
        self._users = 1
        self._inherited: dict[int, Entry] = {} if predecessor is None else dict(predecessor.inherited())
        self.reason = _earlier_context(self._inherited, forked=predecessor is not None)
        self.unpublished = ""
        self._table = self._make_table(directory)
        self.path = self._table.path
        if isinstance(self._table, DescriptorTable):
            self.reason = self.reason or _hook(self._table)
            self._table.set_complete(self.exact, self.reason)
            self._table.close_in_children()
        if predecessor is not None:
            predecessor._table.close()

    @classmethod
    def open(cls, directory: Path | None = None) -> Ledger:
        """The process's ledger; made at the first call. Each `open` needs one `close`. Never raises for what it lacks.

        Open it before the first zmq.Context: descriptors made earlier are in no ledger (`exact` is False then).
        `directory`: where its file goes, by default runtime_directory.default().
        """
        global _current, _forked_from
        fork.settle()
        with fork.still(), _lock:  # it reads /proc, and no child needs to keep a file of that
            if _current is None:
                _current = cls(directory or runtime_directory.default(), _forked_from)
                _forked_from = None
            else:
                _current._users += 1
            return _current

    def close(self) -> None:
        """Ends the ledger when its last user closes it, and removes its file. In a forked child: does nothing."""
        global _current
        if fork.ended(self._epoch):
            return
        with _lock:
            if self._users == 0:
                return
            self._users -= 1
            if self._users:
                return
            if _current is self:
                _current = None
            self._table.close()

    @property
    def exact(self) -> bool:
        """Whether every descriptor that libzmq opens is in the ledger."""
        return not self.reason

    # --- writing

    @contextmanager
    def owner(self, name: str) -> Iterator[None]:
        """What libzmq opens in this thread, inside, belongs to `name`. Nests. Do not `await` inside."""
        with self._table.owner(name):
            yield

    @contextmanager
    def standby(self, *, eventfds: int = 0, epolls: int = 0) -> Iterator[None]:
        """Opens so many descriptors first, for the present owner, and has libzmq take them inside, in this thread: its
        calls cannot fail. Raises OSError before anything is begun. Without the hooks nothing happens.
        """
        with self._table.standby(eventfds=eventfds, epolls=epolls):
            yield

    def release_owner(self, name: str) -> None:
        """`name` opens no more; what it still has keeps the name until it is closed."""
        self._table.release_owner(name)

    def assign(self, number: int, name: str) -> bool:
        """A socket that libzmq opened in its own thread belongs to `name`.

        False, and nothing done, when the number is no socket of libzmq (any more).
        """
        return self._table.assign(number, name)

    def register(self, number: int, kind: str, owner: str) -> None:
        """Enters a descriptor that Python code opened. Do both inside `fork.still()`, or a child may not know of it."""
        self._table.put(number, kind, owner)

    def open_socket(self, family: int, type_: int) -> int:
        """The number of a new socket, for libzmq to have; in the ledger from the first moment, where that is exact."""
        return self._table.open_socket(family, type_)

    def close_number(self, number: int) -> None:
        """Closes such a socket, which libzmq did not take."""
        self._table.close_number(number)

    def forget(self, number: int) -> None:
        """A registered or inherited descriptor is about to be closed. Do both inside `fork.still()`."""
        if not self._table.forget(number):
            self._inherited.pop(number, None)

    # --- reading

    def entries(self) -> list[Entry]:
        """All open descriptors of this process that are in the ledger, at one moment, in order of their number."""
        return [entry for entry in self._table.entries() if not entry.inherited]

    def compare(self) -> Comparison:
        """The ledger beside /proc/self/fd. In a busy process `settled` may be False after 50 tries."""
        for _ in range(SETTLED_TRIES):
            before = self._table.counters().changes
            links = links_of(os.getpid())
            entries = self.entries()
            settled = before == self._table.counters().changes and before % 2 == 0
            if settled:
                break
        return compare(entries, links, settled=settled, exact=self.exact, reason=self.reason)

    def unexplained(self, baseline: Mapping[int, str]) -> tuple[str, ...]:
        """For tests at rest: () if the ledger equals /proc, but for `baseline` (an earlier `open_descriptors()`)."""
        return self.compare().unexplained(baseline)

    def statistics(self) -> LedgerStatistics:
        """Counts by kind and owner ("" where not known), and since the start."""
        entries = self.entries()
        counters = self._table.counters()
        return LedgerStatistics(
            exact=self.exact,
            reason=self.reason,
            path=self.path,
            open=len(entries),
            by_kind=dict(Counter(entry.kind for entry in entries)),
            by_owner=dict(Counter(entry.owner for entry in entries)),
            opened=counters.opened,
            closed=counters.closed,
            unpublished=len(entries) if self.path is None else counters.unpublished,
            out_of_range=counters.out_of_range,
            closed_in_child=counters.closed_in_child,
            strange_in_child=counters.strange_in_child,
        )

    # --- fork

    def inherited(self) -> Mapping[int, Entry]:
        """In a forked child: number -> entry of what the parents' ledgers held and is still open here.

        Empty after fork() where the ledger is exact. After clone() or _Fork(), of which nobody is told, those that have
        no inode to prove what they are: eventfds and epolls, which keep no port and no connection.
        """
        entries = self._table.entries()
        found = self._inherited | {entry.number: entry for entry in entries if entry.inherited}
        for entry in entries:
            if not entry.inherited:
                found.pop(entry.number, None)
        return found

    def close_inherited(self) -> int:
        """Closes, by number, what a forked child inherited and the library did not close; returns how many it was."""
        closed = 0
        if isinstance(self._table, DescriptorTable):
            return closed
        for number, entry in self.inherited().items():
            self.forget(number)
            with suppress(OSError):
                if fits(entry, os.readlink(f"/proc/self/fd/{number}")):
                    os.close(number)
                    closed += 1
        return closed

    # --- making

    def _make_table(self, directory: Path) -> DescriptorTable | PlainTable:
        try:
            runtime_directory.prepare(directory)
            runtime_directory.sweep(directory)
            path = directory / f"{os.getpid()}{SUFFIX}"
            path.unlink(missing_ok=True)  # of an earlier process with our pid: ours has none yet
            return DescriptorTable.create(path)
        except LibraryMissingError as error:
            self.reason = self.unpublished = error.message
            return PlainTable()
        except (OSError, TableError) as error:
            self.unpublished = str(error)
        try:
            return DescriptorTable.create()
        except RecorderError as error:
            self.reason = error.message
            return PlainTable()


_lock = threading.Lock()
_current: Ledger | None = None
_forked_from: Ledger | None = None


def open_descriptors() -> dict[int, str]:
    """What each descriptor of this process points to: a baseline for `Ledger.unexplained`."""
    return links_of(os.getpid())


def _hook(table: DescriptorTable) -> str:
    """Hooks libzmq, wherever it is. Returns why that is not enough, or ""."""
    functions: frozenset[str] = frozenset()
    for name in _LIBRARIES:
        hooked = table.hook_library(name)
        functions |= hooked.functions
        if hooked.error:
            return f"an import of libzmq could not be replaced: {os.strerror(hooked.error)}"
    lacking = [" or ".join(sorted(needed)) for needed in _NEEDED if not needed & functions]
    return f"libzmq's imports were not found: {', '.join(lacking)}" if lacking else ""


def _earlier_context(inherited: Mapping[int, Entry], *, forked: bool) -> str:
    """Why the ledger begins too late, or "". Each Context has an eventfd from its birth (ctx.cpp:49)."""
    try:
        return _look_for_context(inherited, forked=forked)
    except OSError as error:  # no descriptor for the look
        return f"whether a zmq.Context existed before the ledger could not be seen: {error.strerror}"


def _look_for_context(inherited: Mapping[int, Entry], *, forked: bool) -> str:
    eventfds = [number for number, link in open_descriptors().items() if link == "anon_inode:[eventfd]"]
    if all(number in inherited for number in eventfds):
        return ""
    started = False
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            started = started or "ZMQbg" in (task / "comm").read_text(errors="replace")
    if not started and not forked:  # eventfds may be an event loop's; a child's Context objects may be its parent's
        started = any(issubclass(type(thing), zmq.Context) and not thing.closed for thing in gc.get_objects())
    return "a zmq.Context existed before the ledger was opened" if started else ""


def _after_fork_in_child() -> None:
    global _current, _forked_from, _lock
    _lock = threading.Lock()
    _current, _forked_from = None, _current or _forked_from
    if _forked_from is not None:
        _forked_from.close_inherited()


fork.in_child(_after_fork_in_child)
