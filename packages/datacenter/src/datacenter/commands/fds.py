"""`datacenter fds PID`: a process's ledger beside what /proc says.

It reads the ledger's file and /proc, and asks neither the process nor the broker: so it works while the broker is down
or the process hangs, and costs that process no descriptor.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import typer

from datacenter.errors import NotPermittedError
from datacenter.sockets.ledger_compare import Comparison, compare_with_proc, no_such_process
from leakline import proc
from leakline.errors import KernelThreadError, LeaklineError, NoSuchProcessError, ZombieError
from leakline.facts import Address, Descriptor, Snapshot
from leakline.recorder import Entry
from leakline.reports.style import write

_STANDARD = {0: "stdin", 1: "stdout", 2: "stderr"}
_HEADER = ("FD", "KIND", "OWNER", "AGE", "WHAT IT IS")


@dataclass(frozen=True)
class Row:
    """One descriptor number. `age_s` is None for what is not in the ledger.

    `status`: `owned`; `other` (open, and not datacenter's); `missing` (in the ledger, not open); `mismatched` (in the
    ledger, but the number is something else now).
    """

    number: int
    kind: str
    owner: str
    age_s: float | None
    status: Literal["owned", "other", "missing", "mismatched"]
    detail: str


def fds(
    pid: int = typer.Argument(help="A process that has a client, a service or a broker.", metavar="PID"),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Show every descriptor of a datacenter process: number, kind, owner, age.

    \b
    Examples:
      datacenter fds 4711
      datacenter fds 4711 --json | jq '.descriptors[] | select(.status != "owned")'
    """
    comparison, snapshot = look(pid)
    rows = rows_of(comparison, {each.number: each for each in snapshot.descriptors}, time.monotonic())
    if as_json:
        write(json.dumps(as_object(pid, snapshot.command, comparison, rows)))
        return
    write("\n".join([*as_lines(rows), summary(rows), certainty(comparison)]))


def look(pid: int) -> tuple[Comparison, Snapshot]:
    """Reads both sides. Raises NoSuchProcessError, NotPermittedError, NoLedgerError."""
    try:
        snapshot = proc.snapshot(pid, threads=False, libraries=False)
    except (NoSuchProcessError, ZombieError, KernelThreadError) as error:
        raise no_such_process(pid) from error
    except LeaklineError as error:
        hint = f"Type `sudo datacenter fds {pid}`." if os.geteuid() else error.hint
        raise NotPermittedError(error.message, hint) from error
    return compare_with_proc(pid), snapshot


def rows_of(comparison: Comparison, seen: dict[int, Descriptor], now_s: float) -> list[Row]:
    """One row a number, in order. `seen`: what /proc and the socket tables say of each. Pure."""

    def row(entry: Entry, status: Literal["owned", "missing", "mismatched"], detail: str) -> Row:
        return Row(
            entry.number, entry.kind, entry.owner or "unknown", max(0.0, now_s - entry.opened_at_s), status, detail
        )

    rows = [row(entry, "owned", _detail(seen.get(entry.number), entry)) for entry in comparison.owned]
    rows += [row(entry, "missing", "not open: the ledger is wrong") for entry in comparison.missing]
    rows += [row(entry, "mismatched", f"is {target} now") for entry, target in comparison.mismatched]
    for number, target in comparison.unowned:
        known = seen.get(number)
        detail = _detail(known, None) or target
        name = _STANDARD.get(number)
        kind = known.kind if known else target.partition(":")[0]
        rows.append(Row(number, kind, "", None, "other", f"{name}: {detail}" if name else detail))
    return sorted(rows, key=lambda row: row.number)


def _detail(descriptor: Descriptor | None, entry: Entry | None) -> str:
    """Addresses and state of a socket, the path of a file; "" where the kind says it all."""
    if descriptor is None:
        return ""
    socket = descriptor.socket
    if socket is None:
        return "" if descriptor.target.startswith(("anon_inode:", "pipe:")) and entry else descriptor.target
    ends = " -> ".join(_address(address) for address in (socket.local, socket.remote) if address)
    return " ".join(part for part in (ends, socket.state or "", "" if ends else socket.role) if part)


def _address(address: Address) -> str:
    if not address.port:
        return address.host
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def as_object(pid: int, command: str, comparison: Comparison, rows: Sequence[Row]) -> dict[str, object]:
    """The JSON object, schema 1."""
    return {
        "schema": 1,
        "pid": pid,
        "command": command,
        "exact": comparison.exact,
        "reason": comparison.reason or None,
        "settled": comparison.settled,
        "counts": dict(Counter(row.status for row in rows)),
        "descriptors": [asdict(row) for row in rows],
    }


def as_lines(rows: Sequence[Row]) -> list[str]:
    """A table of plain text. `*` marks what is not datacenter's, `!` what does not add up."""
    marks = {"owned": "", "other": " *", "missing": " !", "mismatched": " !"}
    table = [_HEADER]
    for row in rows:
        age = "-" if row.age_s is None else _age(row.age_s)
        table.append((f"{row.number}{marks[row.status]}", row.kind, row.owner or "-", age, row.detail))
    widths = [max(len(cells[column]) for cells in table) for column in range(len(_HEADER))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table]


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def summary(rows: Sequence[Row]) -> str:
    """`23 descriptors: 19 owned by datacenter, 4 others (stdin, stdout, stderr, 1 file), 0 unaccounted`."""
    owned = sum(row.status == "owned" for row in rows)
    others = [row for row in rows if row.status == "other"]
    unaccounted = sum(row.status in ("missing", "mismatched") for row in rows)
    names = [_STANDARD[row.number] for row in others if row.number in _STANDARD]
    kinds = Counter(row.kind for row in others if row.number not in _STANDARD)
    names += [f"{count} {kind}" for kind, count in kinds.most_common()]
    total = sum(row.status != "missing" for row in rows)
    listed = f" ({', '.join(names)})" if names else ""
    return f"{total} descriptors: {owned} owned by datacenter, {len(others)} others{listed}, {unaccounted} unaccounted"


def certainty(comparison: Comparison) -> str:
    """Whether to believe it."""
    busy = "" if comparison.settled else "; descriptors came and went meanwhile, so single lines may be late"
    if comparison.exact:
        return f"exact: every descriptor that libzmq opens is seen{busy}"
    return f"probable: {comparison.reason}; among the others may be libzmq's{busy}"
