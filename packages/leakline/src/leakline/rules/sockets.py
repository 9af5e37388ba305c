"""`tcp.close-wait` and `socket.never-bound`: sockets that pile up because nobody closes them. Growth is judged
elsewhere.
"""

from __future__ import annotations

from leakline.facts import Descriptor, Finding
from leakline.rules.grouping import lasting, peer_of, top
from leakline.rules.observed import Observed

MIN_SOCKETS = 10  # a handful is normal: an ioctl() socket kept for use, a peer that has just hung up
MIN_SECONDS = 3.0


def close_wait(observed: Observed) -> list[Finding]:
    """Connections whose peer has closed, and which this process keeps, over the whole observation."""
    kept = [each for each in _lasting(observed) if each.socket is not None and each.socket.state == "CLOSE_WAIT"]
    if len(kept) < MIN_SOCKETS:
        return []
    peers = top(peer_of(each) for each in kept)
    return [
        Finding(
            id="tcp.close-wait",
            severity="warning",
            title=f"{len(kept)} TCP connections stay in CLOSE_WAIT",
            count=len(kept),
            per_second=_rate(observed, "tcp"),
            evidence={"peers": peers, "seconds": round(observed.seconds, 1), "threshold": MIN_SOCKETS},
            cause="The peer has closed; the kernel waits for this process to close its end. It has stopped reading"
            " these sockets, or lost the objects without closing them; a forked child may also hold a copy of each.",
            remedy="Close a connection when a read returns 0 bytes or raises an error, on every path; use a"
            f" time-out on idle peers. Next: leakline ls {observed.pid} --kind tcp",
        )
    ]


def never_bound(observed: Observed) -> list[Finding]:
    """Sockets that were made and then neither bound nor connected, over the whole observation."""
    kept = [each for each in _lasting(observed) if each.socket is not None and each.socket.role == "never-bound"]
    if len(kept) < MIN_SOCKETS:
        return []
    protocols = top(each.socket.protocol for each in kept if each.socket is not None)
    return [
        Finding(
            id="socket.never-bound",
            severity="warning",
            title=f"{len(kept)} sockets were made and never bound nor connected",
            count=len(kept),
            per_second=max(_rate(observed, "tcp"), _rate(observed, "udp"), _rate(observed, "socket")),
            evidence={"protocols": protocols, "seconds": round(observed.seconds, 1), "threshold": MIN_SOCKETS},
            cause="Most often an error path: connect() or bind() failed, and the function returned without closing"
            " the socket. ss and netstat do not list such sockets, so they show only in /proc/PID/fd.",
            remedy="Close the socket on every path out of the function (`with socket.socket() as s:`, `defer`, a"
            f" destructor), in particular where connect() fails. Next: leakline ls {observed.pid}",
        )
    ]


def _lasting(observed: Observed) -> list[Descriptor]:
    if observed.begin is None or observed.end is None or observed.end.at - observed.begin.at < MIN_SECONDS:
        return []
    return lasting(observed.begin, observed.end)


def _rate(observed: Observed, kind: str) -> float:
    trend = observed.growth.trends.get(kind)
    return round(trend.per_second, 3) if trend is not None and trend.verdict == "leak" else 0.0
