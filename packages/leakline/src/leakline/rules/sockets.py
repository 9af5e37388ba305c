"""`tcp.close-wait` and `socket.never-bound`: sockets that lead nowhere and that nobody closes. Where they are what a
kind grows by, each is the one finding that tells it.
"""

from __future__ import annotations

from collections import Counter

from leakline.facts import Descriptor, Finding
from leakline.rules.grouping import lasting, peer_of, top
from leakline.rules.observed import Observed
from leakline.rules.ruled_out import ruled_out
from leakline.rules.sorts import CLOSE_WAIT, NEVER_BOUND, forecast, growing_by, more, rate_of, sort_of

MIN_SOCKETS = 10  # a handful is normal: an ioctl() socket kept for use, a peer that has just hung up
MIN_SECONDS = 3.0
_THRESHOLD = f"{MIN_SOCKETS} of them, the same ones for {MIN_SECONDS:.0f} s"


def close_wait(observed: Observed) -> list[Finding]:
    """Connections whose peer has closed, and which this process keeps, over the whole observation."""
    kept = _lasting(observed, CLOSE_WAIT)
    if len(kept) < MIN_SOCKETS:
        return []
    growth = growing_by(observed, CLOSE_WAIT)
    return [
        Finding(
            id=CLOSE_WAIT,
            severity="leak" if growth else "warning",
            title=f"{len(kept)} TCP connections stay in CLOSE_WAIT{more(growth)}",
            count=len(kept),
            per_second=rate_of(growth),
            evidence={
                "peers": top(peer_of(each) for each in kept),
                "unread_bytes": sum(each.socket.receive_queue or 0 for each in kept if each.socket),
                "seconds": round(observed.seconds, 1),
                **forecast(observed, growth),
            },
            cause="The peer has closed; the kernel waits for this process to close its end. It has stopped reading"
            " these sockets, or lost the objects without closing them; a forked child may also hold a copy of each.",
            remedy="Close a connection when a read returns 0 bytes or raises an error, on every path (`if not data:"
            " conn.close()`); use a time-out on idle peers.",
            harmless="A peer has closed many at once and the process is still busy with them: look again.",
            next=f"leakline ls {observed.pid} --kind tcp",
            threshold=_THRESHOLD,
            ruled_out=ruled_out(observed, CLOSE_WAIT),
        )
    ]


def never_bound(observed: Observed) -> list[Finding]:
    """Sockets that lead nowhere, over the whole observation: for the kernel, never bound nor connected and refused or
    reset are the same.
    """
    kept = _lasting(observed, NEVER_BOUND)
    if len(kept) < MIN_SOCKETS:
        return []
    growth = growing_by(observed, NEVER_BOUND)
    errors = _errors(observed)
    return [
        Finding(
            id=NEVER_BOUND,
            severity="leak" if growth else "warning",
            title=f"{len(kept)} sockets have neither an address nor a peer{more(growth)}",
            count=len(kept),
            per_second=rate_of(growth),
            evidence={
                "protocols": top(each.socket.protocol for each in kept if each.socket is not None),
                **({"failed_with": errors} if errors else {}),
                "seconds": round(observed.seconds, 1),
                **forecast(observed, growth),
            },
            cause="They were made and never bound nor connected, or (TCP) their connection was refused or reset; and"
            " they were not closed. Most often an error path: connect() or bind() failed, and the function returned."
            " ss and netstat do not list such sockets, so they show only in /proc/PID/fd.",
            remedy="Close the socket on every path out of the function (`with socket.socket() as s:`, `defer`, a"
            " destructor), in particular where connect() fails.",
            harmless="The program keeps sockets for ioctl() calls; seldom more than a few.",
            next=f"leakline ls {observed.pid}",
            threshold=_THRESHOLD,
            ruled_out=ruled_out(observed, NEVER_BOUND),
        )
    ]


def _errors(observed: Observed) -> dict[str, int]:
    """With which errno the last bind or connect of such sockets failed, where that was recorded."""
    alive = observed.recorded.alive if observed.recorded is not None else ()
    return dict(sum((Counter(each.errors) for each in alive), Counter[str]()).most_common())


def _lasting(observed: Observed, sort: str) -> list[Descriptor]:
    if observed.begin is None or observed.end is None or observed.end.at - observed.begin.at < MIN_SECONDS:
        return []
    # What was opened meanwhile has not lasted yet; but where it is what a kind grows by, it is what this is about.
    among = observed.end.descriptors if growing_by(observed, sort) else lasting(observed.begin, observed.end)
    return [each for each in among if sort_of(each) == sort]
