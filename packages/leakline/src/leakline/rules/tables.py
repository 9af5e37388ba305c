"""`socket.not-in-tables`: the process holds more sockets than the kernel's network tables list. A note: it says why
`ls /proc/PID/fd` and `ss -p` disagree; what the missing ones are is told by other findings, if it is bad.
"""

from __future__ import annotations

from collections import Counter

from leakline.facts import Descriptor, Finding
from leakline.figures import grouped
from leakline.rules.observed import Observed

NOT_IN_TABLES = "socket.not-in-tables"
MIN_MISSING = 10


def not_in_tables(observed: Observed) -> list[Finding]:
    """At least `MIN_MISSING` sockets that no table of the process's network namespace lists."""
    sockets = [each for each in (observed.end.descriptors if observed.end else ()) if each.socket is not None]
    missing = [each for each in sockets if each.socket is not None and not each.socket.in_tables]
    if len(missing) < MIN_MISSING:
        return []
    known = len(sockets) - len(missing)
    elsewhere = sum(each.socket is not None and each.socket.role == "unknown" for each in missing)
    return [
        Finding(
            id=NOT_IN_TABLES,
            severity="note",
            title=f"{grouped(len(sockets))} sockets are open, and the kernel's tables list {grouped(known)} of them",
            count=len(missing),
            per_second=0.0,
            evidence={
                "sockets": len(sockets),
                "in_tables": known,
                "not_in_tables": dict(Counter(_what(each) for each in missing).most_common()),
            },
            cause="ss, netstat and /proc/net/tcp list sockets that have an address. The others were never bound nor"
            " connected, or their connection was refused or reset, and nobody closed them: only /proc/PID/fd has"
            " them." + (" Those without a state belong to another network namespace." if elsewhere else ""),
            remedy="Trust the count of /proc/PID/fd. Where the difference grows, look for an error path that does not"
            " close; sockets that the tables have beyond those are in TIME_WAIT, and hold no descriptor.",
            harmless="The difference stays as it is.",
            next=f"leakline ls {observed.pid}",
            threshold=f"{MIN_MISSING} sockets that no table lists",
            confidence="certain" if not elsewhere else "likely",
        )
    ]


def _what(each: Descriptor) -> str:
    socket = each.socket
    if socket is None or socket.role == "unknown":
        return f"{each.kind}, of another network namespace or an unknown family"
    return f"{socket.protocol}, neither address nor peer"
