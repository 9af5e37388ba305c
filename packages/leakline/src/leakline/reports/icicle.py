"""Origins as an icicle: outermost call on top, each box as wide as the descriptors that are open below it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from leakline.facts import Alive, Frame
from leakline.recorder.headline import Whose, whose
from leakline.reports.origins import frames_shown, named

_NARROWEST = 0.002  # of the width: below, nothing could be seen or touched
_DEEPEST = 60


class Box(msgspec.Struct, frozen=True):
    """`left` and `width` in percent of the whole; `depth` from 0. `sort`: all, kind, user, or library."""

    depth: int
    left: float
    width: float
    count: int
    name: str
    place: str
    sort: str
    kind: str = ""
    hidden: int = 0  # frames of a library that this one stands for


class _Node:
    def __init__(self) -> None:
        self.count = 0
        self.hidden = 0
        self.calls: dict[Frame, _Node] = {}


def boxes(alive: Iterable[Alive]) -> tuple[Box, ...]:
    """The first is all of them, then one for each kind, then its calls: each row's widest first."""
    kinds: dict[str, _Node] = {}
    for each in alive:
        node = kinds.setdefault(each.kind, _Node())
        node.count += each.origin.count
        for frame, hidden in reversed(frames_shown(each.origin)):
            node = node.calls.setdefault(frame, _Node())
            node.count += each.origin.count
            node.hidden = hidden
    total = sum(node.count for node in kinds.values())
    if not total:
        return ()
    found = [Box(0, 0.0, 100.0, total, "all", "", "all")]
    left = 0
    for kind, node in sorted(kinds.items(), key=lambda item: (-item[1].count, item[0])):
        found.append(Box(1, 100 * left / total, 100 * node.count / total, node.count, kind, "", "kind", kind))
        _add(found, node, 2, left, total, kind)
        left += node.count
    return tuple(found)


def _add(found: list[Box], node: _Node, depth: int, left: int, total: int, kind: str) -> None:
    if depth > _DEEPEST:
        return
    for frame, child in sorted(node.calls.items(), key=lambda item: -item[1].count):
        if child.count / total >= _NARROWEST:
            name, place = named(frame)
            sort = "library" if whose(frame) >= Whose.HEADER else "user"
            box = Box(
                depth, 100 * left / total, 100 * child.count / total, child.count, name, place, sort, kind, child.hidden
            )
            found.append(box)
            _add(found, child, depth + 1, left, total, kind)
        left += child.count
