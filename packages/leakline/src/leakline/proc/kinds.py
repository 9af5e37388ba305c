"""Counts the descriptors of a process by kind again and again, at a cost that does not grow with their number.

A whole look reads every link: 30 ms and more for 10 000 descriptors. Most of them stay as they are, and a new one gets
the lowest free number (POSIX). So between whole looks it is enough to ask for
- the lowest free numbers, until a row of them is free: what was opened is there;
- the numbers that were opened since the last whole look, the youngest first: what is opened and closed again is there.
If the count that results is not the one that the kernel gives, something else was closed, and a whole look is due. What
such a look cannot see is an old number that was closed and given to another kind meanwhile; the next whole look does.
"""

from __future__ import annotations

import bisect
import os
from collections import Counter
from collections.abc import Iterable
from itertools import chain, count

from leakline.facts import Descriptor
from leakline.link_targets import kind_of
from leakline.proc.descriptors import kind_of_path, kind_of_protocol, protocol_of, read_links
from leakline.proc.process import LastingProcess, Process

FREE_IN_A_ROW = 16  # numbers: then nothing was opened further up
YOUNG = 96  # of those opened since the last whole look, asked again each time


class KindCounter:
    """The kinds of one process's descriptors. `known` are those of a first look, by whoever took it. Holds nothing
    between calls; use it from one thread at a time.
    """

    def __init__(self, process: LastingProcess, known: Iterable[Descriptor]) -> None:
        self._process = process
        self._kinds: dict[int, str] = {}
        self._of_target: dict[str, str] = {}
        for each in known:
            self._kinds[each.number] = each.kind
            self._remember(each.target, each.kind)
        self._young: dict[int, None] = {}
        self._find_free()

    def whole(self) -> dict[str, int]:
        """Look at every link. Raises LeaklineError as `proc.snapshot` does."""
        process = self._process.process()
        links = read_links(process)
        if links.denied and links.denied == len(links.numbers):
            raise process.denied()
        for target in self._of_target.keys() - set(links.targets):
            del self._of_target[target]
        pairs = zip(links.numbers, links.targets, strict=True)
        self._kinds = {number: self._kind(process, number, target) for number, target in pairs}
        self._young.clear()
        self._find_free()
        process.check_same()
        return self._counted()

    def quick(self, total: int) -> dict[str, int] | None:
        """Look at what may have changed; None if that does not add up to `total`, or to nearly as many where
        descriptors come and go while one looks.
        """
        process = self._process.process()
        moved = sum(self._again(process, number) for number in list(self._young)[-YOUNG:])
        row = 0
        for number in chain(tuple(self._free), count(self._beyond)):
            opened = self._again(process, number)
            moved += opened
            row = 0 if opened else row + 1
            if row == FREE_IN_A_ROW:
                break
        return self._counted() if abs(len(self._kinds) - total) <= moved else None

    def _find_free(self) -> None:
        self._counts = Counter(self._kinds.values())
        self._beyond = max(self._kinds, default=-1) + 1
        self._free = [number for number in range(self._beyond) if number not in self._kinds]

    def _again(self, process: Process, number: int) -> bool:
        """Ask for one number; whether it was opened, closed or changed since."""
        before = self._kinds.get(number)
        try:
            target = os.readlink(f"{process.path}/fd/{number}")
        except OSError:
            if before is not None:
                self._closed(number)
            return before is not None
        kind = self._kind(process, number, target)
        if before is None:
            self._opened(number)
        else:
            self._counts[before] -= 1
        self._kinds[number] = kind
        self._counts[kind] += 1
        return before != kind

    def _opened(self, number: int) -> None:
        self._young[number] = None
        if number >= self._beyond:
            self._free += range(self._beyond, number)
            self._beyond = number + 1
        else:
            self._free.remove(number)

    def _closed(self, number: int) -> None:
        self._counts[self._kinds.pop(number)] -= 1
        self._young.pop(number, None)
        bisect.insort(self._free, number)

    def _kind(self, process: Process, number: int, target: str) -> str:
        known = self._of_target.get(target)
        if known is not None:
            return known
        kind = kind_of(target)
        if kind is None and target.startswith("socket:["):
            kind = kind_of_protocol(protocol_of(process, number))
        kind = kind or kind_of_path(process, number)
        self._remember(target, kind)
        return kind

    def _remember(self, target: str, kind: str) -> None:
        if not target.endswith(" (deleted)"):  # of deleted files, several may have had the same name
            self._of_target[target] = kind

    def _counted(self) -> dict[str, int]:
        return {kind: number for kind, number in self._counts.most_common() if number}
