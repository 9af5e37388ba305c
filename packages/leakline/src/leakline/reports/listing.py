"""The listing of `leakline ls`: one line a descriptor, then the sums; or the same as JSON.

A terminal gets lines cut to its width. A pipe gets whole ones, so that grep, awk and sort see everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import msgspec

from leakline.facts import Address, Descriptor, Frame, Snapshot, Socket, told
from leakline.reports.style import Style, grouped, printable

_HEADER = ("FD", "KIND", "ROLE", "STATE", "LOCAL", "REMOTE", "SERVICE", "FLAGS", "OPENED BY", "TARGET")
_COLOURS = {"CLOSE_WAIT": "yellow", "never-bound": "yellow", "listener": "green"}
_FLAGS = (
    (os.O_CLOEXEC, "cloexec"),
    (os.O_NONBLOCK, "nonblock"),
    (os.O_APPEND, "append"),
    (os.O_DIRECT, "direct"),
    (getattr(os, "O_PATH", 0o10000000), "path"),
)
_ACCESS = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}


def as_json(snapshot: Snapshot, kinds: frozenset[str], openers: Mapping[int, Frame] | None = None) -> str:
    """One object, schema 1. `kinds` selects among the descriptors; the sums are always those of all. `openers`: the
    line that opened each, by number, where a recorder knows.
    """
    limits = snapshot.limits
    report = {
        "schema": 1,
        "pid": snapshot.pid,
        "command": snapshot.command,
        "limit": limits.soft if limits else None,
        "hard_limit": limits.hard if limits else None,
        "total": snapshot.total,
        "highest": snapshot.highest,
        "counts": snapshot.counts(),
        "descriptors": [descriptor for descriptor in snapshot.descriptors if not kinds or descriptor.kind in kinds],
        "unreadable": snapshot.unreadable,
    }
    if openers:
        report["opened_by"] = {str(number): frame for number, frame in openers.items()}
    return msgspec.json.encode(report).decode()


def as_text(
    snapshot: Snapshot,
    kinds: frozenset[str],
    style: Style,
    cut: bool,
    openers: Mapping[int, Frame] | None = None,
) -> str:
    """Aligned columns, then the sums. Columns that would be empty throughout are left out; `cut` fits the width."""
    by = {} if openers is None else {number: printable(told(frame)) for number, frame in openers.items()}
    rows = [
        _row(descriptor, by.get(descriptor.number, ""))
        for descriptor in snapshot.descriptors
        if not kinds or descriptor.kind in kinds
    ]
    columns = [i for i in range(len(_HEADER)) if any(row[i] for row in rows)] if rows else []
    widths = [max(len(_HEADER[i]), *(len(row[i]) for row in rows)) for i in columns]
    lines = [_line(_HEADER, columns, widths, style, cut, heading=True)] if rows else []
    lines += [_line(row, columns, widths, style, cut) for row in rows]
    lines += _sums(snapshot, style)
    return style.plain("\n".join(lines))


def _row(descriptor: Descriptor, opener: str) -> tuple[str, ...]:
    role, state, local, remote, service = _socket(descriptor.socket)
    number, flags = str(descriptor.number), _flags(descriptor.flags)
    return (number, descriptor.kind, role, state, local, remote, service, flags, opener, printable(descriptor.target))


def _socket(socket: Socket | None) -> tuple[str, str, str, str, str]:
    if socket is None:
        return ("", "", "", "", "")
    queues = [
        f"{name} {size}"
        for name, size in (("in", socket.receive_queue), ("out", socket.send_queue))
        if size and socket.role != "listener"
    ]
    state = " ".join([socket.state or "", *queues]).strip()
    return (socket.role, state, address_text(socket.local), address_text(socket.remote), socket.service or "")


def address_text(address: Address | None) -> str:
    """`127.0.0.1:80`, `[::1]:80`, `0.0.0.0:*` without a port, or the path of a UNIX socket; "" for none."""
    if address is None:
        return ""
    if address.port == 0 and not _is_ip(address.host):
        return printable(address.host)
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port or '*'}"


def _is_ip(host: str) -> bool:
    return host[:1].isdigit() or (":" in host and not host.startswith(("/", "@")))


def _flags(flags: int | None) -> str:
    if flags is None:
        return ""
    return ",".join([_ACCESS.get(flags & os.O_ACCMODE, "?"), *(name for bit, name in _FLAGS if flags & bit)])


def _line(
    cells: tuple[str, ...], columns: list[int], widths: list[int], style: Style, cut: bool, heading: bool = False
) -> str:
    padded = [
        cells[i].rjust(width) if i == 0 else cells[i].ljust(width) for i, width in zip(columns, widths, strict=True)
    ]
    line = "  ".join(padded).rstrip()
    if cut and len(line) > style.width:
        line = style.cut(line)
    if heading:
        return style.paint(line, "bold")
    colour = next((_COLOURS[cell] for cell in cells[2:4] if cell in _COLOURS), None)
    return style.paint(line, colour) if colour else line


def _sums(snapshot: Snapshot, style: Style) -> Iterable[str]:
    counts = ", ".join(f"{kind} {grouped(count)}" for kind, count in snapshot.counts().items())
    noun = "descriptor" if snapshot.total == 1 else "descriptors"
    yield style.paint(f"{grouped(snapshot.total)} {noun}" + (f": {counts}" if counts else ""), "bold")
    if snapshot.limits and snapshot.total:
        share = 100 * snapshot.total / max(1, snapshot.limits.soft)
        yield f"limit {grouped(snapshot.limits.soft)} ({share:.1f} % used), highest number {snapshot.highest}"
    for text in snapshot.unreadable:
        yield style.paint(f"not read: {text}", "yellow")
