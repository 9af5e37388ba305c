"""Looks at this process's own descriptors, and what is new between two of them. The difference is pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from leakline.link_targets import kind_of
from leakline.own_process.recorder import Counters, OwnRecorder

STANDARD_STREAMS = (0, 1, 2)  # they are pointed elsewhere and back, by whoever captures output


class Identity(NamedTuple):
    """Which descriptor a number is: the number alone is given out again. `opening` only grows; 0: not recorded."""

    target: str
    opening: int = 0


Open = Mapping[int, Identity]  # by number


class Look(NamedTuple):
    """All descriptors at one moment. `counters`: those of the recorder, None without one."""

    open: Open
    counters: Counters | None


def look(recorder: OwnRecorder | None) -> Look:
    """Look at all descriptors of this process, but not at the one that it takes to look: some 50 us for 30 of them."""
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    targets: dict[int, str] = {}
    try:
        for name in os.listdir(folder):
            try:
                targets[int(name)] = os.readlink(name, dir_fd=folder)
            except OSError:  # closed meanwhile by another thread
                continue
    finally:
        os.close(folder)
    targets.pop(folder, None)
    if recorder is None:
        return Look({number: Identity(target) for number, target in targets.items()}, None)
    found = {number: Identity(target, recorder.generation(number)) for number, target in targets.items()}
    return Look(found, recorder.counters())


def unmoved(before: Look, recorder: OwnRecorder | None) -> bool:
    """Whether the same descriptors are open as then: a few microseconds where nothing was opened or closed, some 10
    where all that was opened was closed again. False without a recorder: it is not known.
    """
    if recorder is None or len(before.open) != _count():
        return False
    return before.counters == recorder.counters() or all(
        identity.opening and recorder.generation(number) == identity.opening
        for number, identity in before.open.items()
        if number not in STANDARD_STREAMS
    )


def _count() -> int:
    """The number of open descriptors (0 before Linux 6.2); the kernel counts without a descriptor of our own."""
    return os.stat("/proc/self/fd").st_size


def appeared(before: Open, after: Open) -> set[int]:
    """Numbers that are another descriptor than before, but for the standard streams."""
    return {
        number
        for number, identity in after.items()
        if number not in STANDARD_STREAMS and not _same(before.get(number), identity)
    }


def _same(before: Identity | None, now: Identity) -> bool:
    """A target with an inode is one thing, however often it was put at that number (dup2); eventfds are all alike."""
    if before is None or before.target != now.target:
        return False
    return before.opening == now.opening or not now.target.startswith("anon_inode:")


def grown(before: Open, after: Open, new: set[int]) -> set[int]:
    """Those of `new` that are more than before. Who closes one and opens another of its kind has replaced it: of a kind
    that did not grow, none counts; of one that grew, the newest do.
    """
    gone = Counter(
        _sort(identity) for number, identity in before.items() if not _same(identity, after.get(number, _NONE))
    )
    kept = set()
    for number in sorted(new, key=lambda number: after[number].opening):
        sort = _sort(after[number])
        if gone[sort]:
            gone[sort] -= 1
        else:
            kept.add(number)
    return kept


_NONE = Identity("")


def _sort(identity: Identity) -> str:
    """What the target alone says of the kind."""
    return kind_of(identity.target) or ("socket" if identity.target.startswith("socket:[") else "path")
