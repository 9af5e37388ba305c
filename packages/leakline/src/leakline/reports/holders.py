"""Who holds a thing: one line a process and open file, those with copies behind the one that runs longest; or JSON."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

import msgspec

from leakline.durations import in_words
from leakline.facts import Socket
from leakline.figures import escaped
from leakline.holding import DELETED, Held, Row, rows
from leakline.reports.listing import address_text
from leakline.reports.style import Style, grouped, printable

_SHOWN = 200
_HOLDS = {"cwd": "working directory", "root": "root directory", "program": "runs it", "mapped": "has it mapped"}
_NUMBERS = 4
_NARROW = 24  # least room for the command
_WAITING = {
    "TIME_WAIT": "ended, and remembered by the kernel for a minute: no process holds them. A server binds beside them"
    " with SO_REUSEADDR",
    "ESTABLISHED": "made, and not accepted yet",
    "SYN_RECV": "being made",
    "NEW_SYN_RECV": "being made",
}


def as_json(held: Held) -> str:
    """One object, schema 1; `holds` has each descriptor by itself, `rows` what the text shows."""
    shown = [
        {
            "pid": row.holder.pid,
            "how": row.hold.how,
            "numbers": row.numbers,
            "count": row.count,
            "relation": row.relation,
            "of": row.of,
            "seconds": row.holder.seconds,
        }
        for row in rows(held)
    ]
    return msgspec.json.encode(escaped({"schema": 1, **msgspec.to_builtins(held), "rows": shown})).decode()


def as_text(held: Held, style: Style) -> str:
    """Headline, table, then what helps to set it free."""
    found = rows(held)
    lines = [style.paint(line, "bold") for line in textwrap.wrap(printable(_headline(held, found)), style.width)]
    if found:
        lines += ["", *_table(found[:_SHOWN], style)]
    if len(found) > _SHOWN:
        lines.append(style.paint(f"  … and {grouped(len(found) - _SHOWN)} lines more (--json has all)", "dim"))
    notes = [*_notes(held, found)]
    if notes:
        lines.append("")
    for note in notes:
        lines += textwrap.wrap(printable(note), style.width - 2, initial_indent="  ", subsequent_indent="  ")
    return style.plain("\n".join(lines))


def _headline(held: Held, found: Sequence[Row]) -> str:
    if not found:
        who = "no process that could be read" if any(unheld.users for unheld in held.unheld) else "no process"
        return f"{who} holds {held.target}"
    count = len({row.holder.pid for row in found})
    told = f"{held.target}: held by {grouped(count)} process{'es' if count != 1 else ''}"
    copies = {row.holder.pid for row in found if row.relation in ("inherited", "shared")}
    copies -= {row.holder.pid for row in found if row.relation in ("first", "own")}
    return f"{told}, of which {grouped(len(copies))} only {_have(len(copies))} a copy" if copies else told


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _table(found: Sequence[Row], style: Style) -> list[str]:
    cells = [(str(row.holder.pid), _holds(row), in_words(row.holder.seconds), _what(row)) for row in found]
    heads = ("PID", "HOLDS", "RUNS FOR", "AS")
    widths = [max(len(head), *(len(cell[i]) for cell in cells)) for i, head in enumerate(heads)]
    lines = [style.paint(_line(heads, widths), "dim")]
    indent = sum(widths[:3]) + 8
    told: set[int] = set()
    for row, cell in zip(found, cells, strict=True):
        lines += _wrapped(_line(cell, widths), indent, style.width)
        if row.holder.pid not in told:
            told.add(row.holder.pid)
            command = f"{' ' * (widths[0] + 4)}{printable(row.holder.command)}"
            lines.append(style.paint(style.cut(command), "dim"))
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    number, holds, age, what = cells
    return f"  {number.rjust(widths[0])}  {holds.ljust(widths[1])}  {age.ljust(widths[2])}  {what}".rstrip()


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    """The first columns as they are, the last one under itself."""
    room = max(width - indent, _NARROW)
    first, *rest = textwrap.wrap(text[indent:], room) or [""]
    return [(text[:indent] + first).rstrip(), *(" " * indent + line for line in rest)]


def _holds(row: Row) -> str:
    if not row.numbers:
        return _HOLDS.get(row.hold.how, row.hold.how)
    if len(row.numbers) > _NUMBERS:
        return f"{grouped(row.count)} descriptors"
    return "fd " + ",".join(map(str, row.numbers))


def _what(row: Row) -> str:
    parts = [_socket(row.hold.socket)] if row.hold.socket else []
    if row.hold.below:
        path = printable(row.hold.path.removesuffix(DELETED))
        parts.append(path if row.count == 1 else f"{grouped(row.count)} files, {path} is one")
    if row.relation == "inherited":
        parts.append(f"inherited from {row.of} when it began")
    elif row.relation == "shared":
        parts.append(f"the same open file as in {row.of}: passed, or inherited")
    if row.hold.deleted:
        parts.append("deleted" + (f", keeps {_size(row.bytes_kept)}" if row.bytes_kept else ""))
    if row.hold.namespace is not None:
        parts.append(f"in network namespace {row.hold.namespace}")
    return ", ".join(parts)


def _socket(socket: Socket) -> str:
    told = f"{socket.protocol} {'listener' if socket.role == 'listener' else socket.role}"
    if socket.local is not None:
        told += f" {address_text(socket.local)}"
    if socket.role in ("accepted", "outgoing", "connected") and socket.state:
        told += f" {socket.state}"
    return told


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _notes(held: Held, found: Sequence[Row]) -> list[str]:
    notes: list[str] = []
    copies = sorted({row.holder.pid for row in found if row.relation in ("inherited", "shared")})
    if copies:
        notes.append(
            "It is free only when every copy is closed. A process that needs none: end it, close the descriptor in it"
            " after the fork, or open with close-on-exec (Python's default; SOCK_CLOEXEC, O_CLOEXEC in C)."
        )
    kept = sum(row.bytes_kept for row in found if row.relation in ("first", "own"))
    if kept:
        notes.append(f"Deleted and still open: {_size(kept)} of disk come back when these are closed.")
    for unheld in held.unheld:
        why = _WAITING.get(unheld.state, "ended by their process; the kernel closes them")
        if unheld.users:
            why = f"of {', '.join(unheld.users)}: held by a process that could not be read"
        notes.append(f"{grouped(unheld.count)} in {unheld.state}: {why}.")
    if held.denied:
        count = sum(held.denied.values())
        users = ", ".join(f"{grouped(count)} of {user}" for user, count in sorted(held.denied.items()))
        root = " Look as root." if os.geteuid() else ""
        notes.append(f"Could not be read: {grouped(count)} process{'' if count == 1 else 'es'} ({users}).{root}")
    return notes
