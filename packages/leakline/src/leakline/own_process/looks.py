"""Looks at this process's own descriptors, and what is new between two of them. The difference is pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from errno import EMFILE, ENFILE
from resource import RLIMIT_NOFILE, getrlimit
from typing import NamedTuple

from leakline.link_targets import kind_of
from leakline.own_process.recorder import Counters, OwnRecorder

HIGHEST = 1 << 20  # numbers, where the limit is none
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
    try:
        targets = _targets()
    except OSError as error:
        if error.errno not in (EMFILE, ENFILE):
            raise
        targets = _targets_one_by_one()
    if recorder is None:
        return Look({number: Identity(target) for number, target in targets.items()}, None)
    found = {number: Identity(target, recorder.generation(number)) for number, target in targets.items()}
    return Look(found, recorder.counters())


def _targets() -> dict[int, str]:
    """What each open descriptor leads to. Takes two descriptors."""
    targets: dict[int, str] = {}
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(folder):
            try:
                targets[int(name)] = os.readlink(name, dir_fd=folder)
            except OSError:  # closed meanwhile by another thread
                continue
    finally:
        os.close(folder)
    targets.pop(folder, None)
    return targets


def _targets_one_by_one() -> dict[int, str]:
    """The same without a descriptor, where there is none left: some 2 us for each number below the limit."""
    targets: dict[int, str] = {}
    count, soft = _count(), getrlimit(RLIMIT_NOFILE)[0]
    for number in range(soft if 0 <= soft <= HIGHEST else HIGHEST):
        if count and len(targets) == count:
            break
        with suppress(OSError):
            targets[number] = os.readlink(f"/proc/self/fd/{number}")
    return targets


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
        sort_of(identity) for number, identity in before.items() if not _same(identity, after.get(number, _NONE))
    )
    kept = set()
    for number in sorted(new, key=lambda number: after[number].opening):
        sort = sort_of(after[number])
        if gone[sort]:
            gone[sort] -= 1
        else:
            kept.add(number)
    return kept


_NONE = Identity("")


def sort_of(identity: Identity) -> str:
    """What the target alone says of the kind."""
    return kind_of(identity.target) or ("socket" if identity.target.startswith("socket:[") else "path")
