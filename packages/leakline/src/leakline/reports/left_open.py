"""What was left open, for a person: kinds and peers, most first, each with the line that opened it."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from leakline.facts import Frame, Origin, told
from leakline.own_process.leaks import Leak
from leakline.recorder.merge import is_interpreter
from leakline.reports.origins import origin_lines
from leakline.reports.style import Style, printable

_PEERS = 3  # of one line


def in_a_line(leaks: Iterable[Leak]) -> str:
    """`2 tcp, 1 file, opened by connect (client.py:4)`: kinds, most first, and the line that opened the most."""
    leaks = list(leaks)
    kinds = Counter(leak.kind for leak in leaks).most_common()
    lines = Counter(leak.frames[leak.headline] for leak in leaks if leak.frames).most_common()
    by = f", opened by {told(lines[0][0])}" if lines else ""
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return printable(", ".join(f"{count} {kind}" for kind, count in kinds) + by + more)


def lines_of(leaks: Iterable[Leak], style: Style, unrecorded: str = "") -> list[str]:
    """A block for each kind and line. `unrecorded`: why no line is known, in words."""
    groups: dict[tuple[str, Frame | None], list[Leak]] = defaultdict(list)
    for leak in leaks:
        groups[leak.kind, leak.frames[leak.headline] if leak.frames else None].append(leak)
    lines: list[str] = []
    for (kind, _), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(style.paint(style.cut(f"{len(group)} {kind}: {_peers(group)}"), "bold"))
        first = group[0]
        lines += textwrap.wrap(kept_by(first), style.width, initial_indent="  ", subsequent_indent="    ")
        if first.frames:
            lines += origin_lines([Origin(len(group), first.frames, first.headline)], style)
        else:
            lines.append(f"  opened by: {unrecorded or 'not recorded'}")
    return [style.plain(line) for line in lines]


def kept_by(leak: Leak) -> str:
    """Who keeps it open, in words."""
    holder = leak.holder
    if holder is None:
        return "who keeps it is not known"
    chain = " <- ".join(printable(link) for link in holder.chain)
    if holder.state == "retained":
        return f"retained: a {holder.type}, held by {chain}"
    if holder.state == "garbage":
        return f"waits for the garbage collector: a {holder.type} in a cycle ({chain})"
    if opened_by_library(leak.frames):
        return f"kept by native code: {told(leak.frames[0])} opened it, and no Python object owns it"
    return "lost: no object owns it, so nothing but os.close() of its number closes it"


def opened_by_library(frames: Sequence[Frame]) -> bool:
    """Whether native code that is not CPython's own opened it: who may keep it where no Python object is seen. Nor is
    the object of CPython's mmap and sqlite3 modules: their descriptors cannot be asked for.
    """
    if not frames or frames[0].language == "python":
        return False
    module = frames[0].module
    own = is_interpreter(module) or "/lib-dynload/" in module
    return not own or any(name in module for name in ("/mmap.", "/_sqlite3.", "/_dbm.", "/_gdbm."))


def _peers(group: list[Leak]) -> str:
    counted = Counter(printable(leak.peer) for leak in group).most_common()
    if len(counted) == 1:
        return counted[0][0]
    told = [peer if count == 1 else f"{count} × {peer}" for peer, count in counted[:_PEERS]]
    return "; ".join(told + ([f"{len(counted) - _PEERS} more"] if len(counted) > _PEERS else []))
