"""Of which sort the descriptors are that a kind grows by: "accepted and never closed", "in CLOSE_WAIT", … Pure.

A sort is the id of the finding that tells of it. A descriptor is of the first sort that fits: the order below goes
from the state that explains most ("its peer has gone, and nobody closed it") to the one that explains least.
"""

from __future__ import annotations

from collections import Counter

from leakline.facts import ASKED_CLOSELY, Descriptor
from leakline.figures import rate_text
from leakline.growth import DRAWDOWN_FACTOR, MIN_RISES, MIN_SPAN_S, Trend, seconds_to
from leakline.rules.grouping import new_since
from leakline.rules.observed import Observed

NEVER_BOUND, CLOSE_WAIT = "socket.never-bound", "tcp.close-wait"
LISTENERS, ACCEPTED = "socket.listeners-piling-up", "tcp.accepted-piling-up"
OUTGOING = "tcp.outgoing-piling-up"
HALF_OPEN = "tcp.half-open"
DEAD_PIPE, DEAD_PIDFD, DELETED = "pipe.dead-peer", "pidfd.dead-child", "file.deleted"
MIN_UNANSWERED = 4  # transmissions in a row: 3 s at the least, as each waits twice as long as the one before
_HAS_A_PEER = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2", "LAST_ACK", "CLOSING")
THRESHOLD = (
    f"{MIN_SPAN_S:.0f} s and {MIN_RISES} rises at least, upward, {DRAWDOWN_FACTOR:.0f} times what it ever fell, and"
    " going on"
)


def sort_of(each: Descriptor) -> str | None:
    """The sort of a socket, None if it has none that would explain anything."""
    socket = each.socket
    if socket is None:
        return None
    # sendto() gives a UNIX datagram socket no address: one that talks to syslog or statsd all day looks unused.
    if socket.role == "never-bound":
        return NEVER_BOUND if socket.protocol != "unix-dgram" else None
    if socket.unanswered >= MIN_UNANSWERED and socket.state in _HAS_A_PEER:
        return HALF_OPEN
    if socket.state == "CLOSE_WAIT":
        return CLOSE_WAIT
    if socket.role == "listener":
        return LISTENERS
    if each.kind != "tcp":
        return None
    return {"accepted": ACCEPTED, "outgoing": OUTGOING}.get(socket.role)


def sort_in(observed: Observed, each: Descriptor) -> str | None:
    """The sort of any descriptor of an observed process: also of those for which it had to be looked at closely."""
    if each.kind == "pipe":
        return DEAD_PIPE if each.number in observed.closely.dead_pipes else None
    if each.kind == "pidfd":
        return DEAD_PIDFD if each.number in observed.closely.dead_pidfds else None
    return DELETED if each.deleted else sort_of(each)


def growing_by(observed: Observed, sort: str) -> dict[str, Trend]:
    """The kinds that leak, and of which most that was opened meanwhile, and stayed, is of that sort."""
    found = {}
    for kind, trend in observed.growth.leaks().items():
        fresh = fresh_of(observed, kind)[-ASKED_CLOSELY:]
        if 2 * sum(sort_in(observed, each) == sort for each in fresh) > len(fresh):
            found[kind] = trend
    return found


def fresh_of(observed: Observed, kind: str) -> list[Descriptor]:
    """Descriptors of a kind that are open at the end and were not at the beginning."""
    if observed.begin is None or observed.end is None:
        return []
    return [each for each in new_since(observed.begin, observed.end) if each.kind == kind]


def held(observed: Observed) -> Counter[str]:
    """How many there are of each sort at the end."""
    return Counter(sort for each in (observed.end.descriptors if observed.end else ()) if (sort := sort_of(each)))


def rate_of(growth: dict[str, Trend]) -> float:
    """Descriptors per second of these kinds together."""
    return round(sum(trend.per_second for trend in growth.values()), 3)


def more(growth: dict[str, Trend]) -> str:
    """The end of a title: `, and more come: 20 per second`; nothing where none do."""
    return f", and more come: {rate_text(rate_of(growth))}" if growth else ""


def forecast(observed: Observed, growth: dict[str, Trend]) -> dict[str, object]:
    """Evidence about growth: how much, towards which limit, and when that is reached."""
    if not growth:
        return {}
    left = seconds_to(observed.growth.limit, observed.growth.total, observed.growth.per_second)
    return {
        "risen": sum(trend.risen for trend in growth.values()),
        "limit": observed.growth.limit,
        "seconds_to_limit": None if left is None else round(left, 1),
    }
