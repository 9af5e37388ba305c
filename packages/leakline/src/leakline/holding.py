"""Who holds one thing (a file, a socket, a port), and which of the holders have only a copy: the pure part of
`leakline holders`.

A descriptor that a child inherited, or that was passed over a UNIX socket, is the same open file as its parent's: a
port is free, and a deleted file's space given back, only when the last of them is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from leakline.facts import Socket

DELETED = " (deleted)"  # what the kernel writes behind the path of what has no name any more

How = Literal["descriptor", "cwd", "root", "program", "mapped"]


class Holder(msgspec.Struct, frozen=True):
    """A process that holds it. `started`: clock ticks since boot; `seconds`: how long it runs; `ancestors`: nearest
    first, as far as they still run.
    """

    pid: int
    command: str
    started: int
    seconds: float
    ancestors: tuple[int, ...] = ()


class Hold(msgspec.Struct, frozen=True):
    """One way in which a process holds it.

    `path`: what the link in /proc says. `below`: of something in the folder or on the file system that was asked for.
    `open_file`: equal for two descriptors that are the same open file, None where the kernel did not tell.
    `bytes_kept`: of a deleted file. `namespace`: inode of the network namespace, where it is not leakline's own.
    """

    pid: int
    how: How
    path: str
    number: int | None = None
    open_file: int | None = None
    socket: Socket | None = None
    below: bool = False
    deleted: bool = False
    bytes_kept: int | None = None
    namespace: int | None = None


class Unheld(msgspec.Struct, frozen=True):
    """Sockets of which no process was found to be the holder. State TIME_WAIT: the kernel keeps them, for a minute."""

    state: str
    count: int
    users: tuple[str, ...] = ()  # whose they are, where there is a descriptor somewhere that may not be read


class Held(msgspec.Struct, frozen=True):
    """The answer. `target`: what was asked for, in words. `denied`: processes that could not be read, by user."""

    target: str
    holders: tuple[Holder, ...]
    holds: tuple[Hold, ...]
    unheld: tuple[Unheld, ...] = ()
    denied: dict[str, int] = {}


Relation = Literal["first", "inherited", "shared", "own"]


class Row(msgspec.Struct, frozen=True):
    """What one process holds of one thing in one way; `numbers` are its descriptors.

    `relation`: `first` is the process that runs longest of those that have this open file; `inherited`: a copy that a
    descendant of `of` has since it began; `shared`: a copy that was passed, or whose common parent has ended; `own`:
    nobody else has this open file.
    """

    holder: Holder
    hold: Hold  # one of those that are told by this row
    numbers: tuple[int, ...]
    count: int
    bytes_kept: int
    relation: Relation
    of: int | None = None


def rows(held: Held) -> tuple[Row, ...]:
    """Listeners first, then the first holder of each open file with its copies behind it."""
    holders = {holder.pid: holder for holder in held.holders}
    by_file = _processes_of_open_files(held.holds, holders)
    grouped: dict[tuple[object, ...], list[Hold]] = {}
    relations: dict[tuple[object, ...], tuple[Relation, int | None]] = {}
    for hold in held.holds:
        relation, of = _relation(hold, by_file, holders)
        key = (hold.pid, hold.how, hold.deleted, _alike(hold), relation, of)
        grouped.setdefault(key, []).append(hold)
        relations[key] = (relation, of)
    found = [
        Row(
            holder=holders[group[0].pid],
            hold=group[0],
            numbers=tuple(sorted(hold.number for hold in group if hold.number is not None)),
            count=len(group),
            bytes_kept=sum(hold.bytes_kept or 0 for hold in group),
            relation=relations[key][0],
            of=relations[key][1],
        )
        for key, group in grouped.items()
    ]
    return tuple(sorted(found, key=_order))


def _alike(hold: Hold) -> object:
    """Holds that need not be told apart: connections of one listener, in one state; what is below a folder."""
    socket = hold.socket
    if socket is None:
        return hold.below or hold.path
    return (hold.namespace, socket.protocol, socket.role, socket.state, socket.local)


def _order(row: Row) -> tuple[object, ...]:
    socket = row.hold.socket
    listens = socket is not None and socket.role in ("listener", "bound")
    first = row.of if row.of is not None else row.holder.pid
    return (
        not listens,
        row.hold.deleted,
        row.hold.how != "descriptor",
        row.hold.path if socket is None else "",
        first,
        row.relation in ("inherited", "shared"),
        row.holder.started,
        row.holder.pid,
    )


def _processes_of_open_files(holds: Iterable[Hold], holders: Mapping[int, Holder]) -> dict[int, list[int]]:
    """The processes that have each open file, longest running first."""
    found: dict[int, set[int]] = {}
    for hold in holds:
        if hold.open_file is not None:
            found.setdefault(hold.open_file, set()).add(hold.pid)
    return {file: sorted(pids, key=lambda pid: (holders[pid].started, pid)) for file, pids in found.items()}


def _relation(
    hold: Hold, by_file: Mapping[int, list[int]], holders: Mapping[int, Holder]
) -> tuple[Relation, int | None]:
    pids = by_file.get(hold.open_file, []) if hold.open_file is not None else []
    if hold.below or len(pids) < 2:
        return "own", None
    if pids[0] == hold.pid:
        return "first", None
    near = next((pid for pid in holders[hold.pid].ancestors if pid in pids), None)
    return ("shared", pids[0]) if near is None else ("inherited", near)
