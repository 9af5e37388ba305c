"""`tcp.close-wait` and `socket.never-bound`: sockets that pile up because nobody closes them. Where they are what a
kind grows by, each is the one finding that tells it.
"""

from __future__ import annotations

from collections import Counter

from leakline.facts import Descriptor, Finding
from leakline.growth import Trend, seconds_to
from leakline.rules.grouping import lasting, new_since, peer_of, top
from leakline.rules.growing import rate_text
from leakline.rules.observed import Observed

CLOSE_WAIT, NEVER_BOUND = "tcp.close-wait", "socket.never-bound"
MIN_SOCKETS = 10  # a handful is normal: an ioctl() socket kept for use, a peer that has just hung up
MIN_SECONDS = 3.0


def close_wait(observed: Observed) -> list[Finding]:
    """Connections whose peer has closed, and which this process keeps, over the whole observation."""
    kept = [each for each in _lasting(observed) if _waits(each)]
    if len(kept) < MIN_SOCKETS:
        return []
    growth = _growth(observed, CLOSE_WAIT)
    return [
        Finding(
            id=CLOSE_WAIT,
            severity="leak" if growth else "warning",
            title=f"{len(kept)} TCP connections stay in CLOSE_WAIT{_more(growth)}",
            count=len(kept),
            per_second=_rate(growth),
            evidence={
                "peers": top(peer_of(each) for each in kept),
                "seconds": round(observed.seconds, 1),
                **_forecast(observed, growth),
            },
            cause="The peer has closed; the kernel waits for this process to close its end. It has stopped reading"
            " these sockets, or lost the objects without closing them; a forked child may also hold a copy of each.",
            remedy="Close a connection when a read returns 0 bytes or raises an error, on every path; use a"
            " time-out on idle peers.",
            harmless="A peer has closed many at once and the process is still busy with them: look again.",
            next=f"leakline ls {observed.pid} --kind tcp",
            threshold=f"{MIN_SOCKETS} of them, the same ones for {MIN_SECONDS:.0f} s",
        )
    ]


def never_bound(observed: Observed) -> list[Finding]:
    """Sockets that lead nowhere, over the whole observation: for the kernel, never bound nor connected and refused or
    reset are the same.
    """
    kept = [each for each in _lasting(observed) if _leads_nowhere(each)]
    if len(kept) < MIN_SOCKETS:
        return []
    growth = _growth(observed, NEVER_BOUND)
    return [
        Finding(
            id=NEVER_BOUND,
            severity="leak" if growth else "warning",
            title=f"{len(kept)} sockets have neither an address nor a peer{_more(growth)}",
            count=len(kept),
            per_second=_rate(growth),
            evidence={
                "protocols": top(each.socket.protocol for each in kept if each.socket is not None),
                "seconds": round(observed.seconds, 1),
                **_forecast(observed, growth),
            },
            cause="They were made and never bound nor connected, or (TCP) their connection was refused or reset; and"
            " they were not closed. Most often an error path: connect() or bind() failed, and the function returned."
            " ss and netstat do not list such sockets, so they show only in /proc/PID/fd.",
            remedy="Close the socket on every path out of the function (`with socket.socket() as s:`, `defer`, a"
            " destructor), in particular where connect() fails.",
            harmless="The program keeps sockets for ioctl() calls; seldom more than a few.",
            next=f"leakline ls {observed.pid}",
            threshold=f"{MIN_SOCKETS} of them, the same ones for {MIN_SECONDS:.0f} s",
        )
    ]


def explained(identity: str, observed: Observed) -> tuple[str, ...]:
    """The kinds whose growth is made of the sockets that such a finding tells of."""
    return tuple(_growth(observed, identity))


def _waits(each: Descriptor) -> bool:
    return each.socket is not None and each.socket.state == "CLOSE_WAIT"


def _leads_nowhere(each: Descriptor) -> bool:
    # sendto() gives a UNIX datagram socket no address: one that talks to syslog or statsd all day looks unused.
    return each.socket is not None and each.socket.role == "never-bound" and each.socket.protocol != "unix-dgram"


def _growth(observed: Observed, identity: str) -> dict[str, Trend]:
    """The kinds that leak, and of which most that was opened meanwhile is in that bad state."""
    is_bad = {CLOSE_WAIT: _waits, NEVER_BOUND: _leads_nowhere}.get(identity)
    if is_bad is None or observed.begin is None or observed.end is None:
        return {}
    fresh, bad = Counter[str](), Counter[str]()
    for each in new_since(observed.begin, observed.end):
        fresh[each.kind] += 1
        bad[each.kind] += is_bad(each)
    return {kind: trend for kind, trend in observed.growth.leaks().items() if 2 * bad[kind] > fresh[kind]}


def _rate(growth: dict[str, Trend]) -> float:
    return round(sum(trend.per_second for trend in growth.values()), 3)


def _more(growth: dict[str, Trend]) -> str:
    return f", and more come: {rate_text(_rate(growth))}" if growth else ""


def _forecast(observed: Observed, growth: dict[str, Trend]) -> dict[str, object]:
    if not growth:
        return {}
    left = seconds_to(observed.growth.limit, observed.growth.total, observed.growth.per_second)
    return {
        "risen": sum(trend.risen for trend in growth.values()),
        "limit": observed.growth.limit,
        "seconds_to_limit": None if left is None else round(left, 1),
    }


def _lasting(observed: Observed) -> list[Descriptor]:
    if observed.begin is None or observed.end is None or observed.end.at - observed.begin.at < MIN_SECONDS:
        return []
    return lasting(observed.begin, observed.end)
