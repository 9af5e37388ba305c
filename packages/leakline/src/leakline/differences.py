"""What came and what went between looks at a process: the pure part of `leakline diff`.

A descriptor is recognised by its number and target. A socket's target has its inode, so that a number that was given
out again is seen; what the kernel calls `anon_inode:[eventfd]` has none, and one that takes over the number of another
looks the same. What was opened and closed between two looks was never there to be seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from leakline.facts import Descriptor, Snapshot
from leakline.rules.grouping import peer_of

Identity = tuple[int, str]


class Group(msgspec.Struct, frozen=True):
    """Descriptors of one kind that lead to the same peer (or path), and that the same line opened, if that is known."""

    kind: str
    peer: str
    count: int
    numbers: tuple[int, ...]
    opened_by: str = ""


class Difference(msgspec.Struct, frozen=True):
    """One action: what it opened that is still open, what it opened and closed, and what it closed of before. Most
    first.
    """

    opened: tuple[Group, ...]
    opened_and_closed: tuple[Group, ...]
    closed: tuple[Group, ...]
    seconds: float
    looks: int


class Residue(msgspec.Struct, frozen=True):
    """What every repetition left open: `each` of that kind and peer at the least."""

    kind: str
    peer: str
    each: int
    opened_by: str = ""


class Looks:
    """Looks at one process, from before an action until after it. Feed snapshots, oldest first. Not thread-safe."""

    def __init__(self, first: Snapshot) -> None:
        self._first = self._last = first
        self._before = {_identity(each) for each in first.descriptors}
        self._seen: dict[Identity, Descriptor] = {}
        self._count = 1

    def add(self, snapshot: Snapshot) -> None:
        """One more look."""
        for each in snapshot.descriptors:
            if _identity(each) not in self._before:
                self._seen[_identity(each)] = each  # the latest look knows most: a socket is connected by then
        self._last = snapshot
        self._count += 1

    def difference(self, openers: Mapping[int, str] | None = None) -> Difference:
        """What the action did, by now. `openers`: the line that opened what is open, by number, where it is known."""
        now = {_identity(each) for each in self._last.descriptors}
        return Difference(
            opened=groups((each for identity, each in self._seen.items() if identity in now), openers),
            opened_and_closed=groups(each for identity, each in self._seen.items() if identity not in now),
            closed=groups(each for each in self._first.descriptors if _identity(each) not in now),
            seconds=self._last.at - self._first.at,
            looks=self._count,
        )


def groups(descriptors: Iterable[Descriptor], openers: Mapping[int, str] | None = None) -> tuple[Group, ...]:
    """By kind, peer and the line that opened them, most first."""
    found: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for each in descriptors:
        found[each.kind, peer_of(each), (openers or {}).get(each.number, "")].append(each.number)
    grouped = [
        Group(kind, peer, len(numbers), tuple(sorted(numbers)), by) for (kind, peer, by), numbers in found.items()
    ]
    return tuple(sorted(grouped, key=lambda group: (-group.count, group.kind, group.peer)))


def residue(rounds: Iterable[Difference]) -> tuple[Residue, ...]:
    """What each of the rounds left open, by kind and peer; empty if there is a round that left nothing of it."""
    left = [{(group.kind, group.peer, group.opened_by): group.count for group in each.opened} for each in rounds]
    if not left:
        return ()
    common = set(left[0]).intersection(*left[1:])
    found = [Residue(kind, peer, min(each[kind, peer, by] for each in left), by) for kind, peer, by in common]
    return tuple(sorted(found, key=lambda item: (-item.each, item.kind, item.peer)))


def _identity(descriptor: Descriptor) -> Identity:
    return descriptor.number, descriptor.target
