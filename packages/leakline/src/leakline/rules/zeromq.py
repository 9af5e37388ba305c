"""`zmq.io-thread-blocked`, `zmq.reaper-blocked`, `zmq.max-sockets`: what libzmq does to a process from the inside.

The facts behind these rules (libzmq 4.3.5):
- A socket's eventfd is closed by the reaper alone, and only after the I/O thread has let go of its connections. A
  blocked I/O thread therefore keeps one eventfd for each socket that was ever connected or bound, then closed
  (socket_base.cpp:265, own.cpp:165). A blocked reaper keeps those of all closed sockets.
- What blocks them is an event for a socket monitor that nobody reads: 1000 + RCVHWM of the reader (2000 by default)
  fit; the next zmq_msg_send() waits for ever (socket_base.cpp:1950). A reader that was closed first blocks the first
  event.
- A context has `max_sockets` slots, 1023 by default (zmq.h:194). When they are used up zmq_socket() fails with EMFILE,
  "Too many open files", although the process's limit is far.
"""

from __future__ import annotations

from leakline.facts import Finding, Frame
from leakline.figures import grouped, rate_text
from leakline.growth import Trend, seconds_to
from leakline.rules.observed import Observed
from leakline.rules.standstill import Standstill

IO_BLOCKED, REAPER_BLOCKED = "zmq.io-thread-blocked", "zmq.reaper-blocked"
BLOCKED = (IO_BLOCKED, REAPER_BLOCKED)
MIN_BLOCKED_S = 1.0  # a healthy one is never outside epoll_wait for longer than a call takes
MAX_SOCKETS = 1023  # ZMQ_MAX_SOCKETS_DFLT
# Eventfds of a full context: one a socket, and three or more of the context itself; few other users have this many.
_FULL = range(MAX_SOCKETS - 8, MAX_SOCKETS + 40)
_FAR_FROM_LIMIT = 0.9
# Connections for each socket that is kept: one end, or both where the peer is in the same process.
_CONNECTIONS_LEAST, _CONNECTIONS_MOST = 0.5, 2.5
_MAILBOXES = {"eventfd": "eventfds", "unix": "its socket pairs"}

_BLOCKED_THRESHOLD = f"{MIN_BLOCKED_S:.0f} s asleep outside epoll, without one context switch, up to the end"
_IO_CAUSE = (
    "Most likely a socket monitor that is no longer read: its pipe is full (1 000 + RCVHWM events, 2 000 by"
    " default) or its reader was closed, and libzmq's I/O thread waits inside zmq_msg_send() to put one more event"
    " in. While it waits no tcp or ipc message of this context moves, and each such socket that is closed leaves"
    " its eventfd behind, as the reaper waits for this thread."
)
_IO_REMEDY = (
    "Read the monitor until after its socket is closed. When you stop monitoring: disable_monitor() first, while"
    " still reading; only then cancel the timer and close the reader. RCVHWM=0 on the reader keeps a slow one from"
    " blocking (it then costs memory). Do not make a socket per query: keep one. Reading the monitor again, or"
    " terminating the context, frees everything."
)
_REAPER_CAUSE = (
    "Most likely the reader of a socket monitor was closed before its socket: closing the socket makes libzmq send"
    " MONITOR_STOPPED, which nobody can receive, from the reaper itself. From then on no closed socket of this"
    " context is ever reaped: each leaves its eventfd behind, connected or not."
)
_REAPER_REMEDY = (
    "Keep this order: disable_monitor() while the reader is still being read, then close the reader, then the"
    " socket. Only terminating the context frees a blocked reaper."
)


def blocked_threads(observed: Observed) -> list[Finding]:
    """Background threads that slept outside epoll, unmoved, for `MIN_BLOCKED_S` up to the end: one finding a role.

    A libzmq that was built upon poll() or select() sleeps there when it is healthy; such a process has no epoll
    descriptor.
    """
    if not observed.counts.get("epoll"):
        return []
    blocked = [thread for thread in observed.threads if thread.seconds >= MIN_BLOCKED_S]
    reapers = [thread for thread in blocked if thread.role == "reaper"]
    others = [thread for thread in blocked if thread.role != "reaper"]
    findings = []
    if others:
        findings.append(_blocked(observed, IO_BLOCKED, others))
    if reapers:
        findings.append(_blocked(observed, REAPER_BLOCKED, reapers))
    if len(findings) == 2:  # both wait: the eventfds are told once
        findings[1] = _without_growth(observed, REAPER_BLOCKED, reapers)
    return findings


def mailbox_kind(observed: Observed) -> str:
    """What a socket's mailbox is made of: an eventfd, or a socket pair where libzmq was built for an old kernel."""
    return "eventfd" if observed.counts.get("eventfd") else "unix"


def kept_by_blocked(observed: Observed) -> dict[str, int]:
    """The kinds that rise because the reaper waits, and by how many: mailboxes, and the connections and listeners of
    the same sockets. Those of other code beside them rise at a pace of their own, or were opened by no libzmq.
    """
    leaks, mailboxes = observed.growth.leaks(), mailbox_kind(observed)
    if mailboxes not in leaks:
        return {mailboxes: 0}
    most, least = _CONNECTIONS_MOST * leaks[mailboxes].risen, _CONNECTIONS_LEAST * leaks[mailboxes].risen
    kinds = [kind for kind in ("tcp", "unix") if kind in leaks and least <= leaks[kind].risen <= most]
    return {kind: leaks[kind].risen for kind in (mailboxes, *kinds) if kind == mailboxes or _of_libzmq(observed, kind)}


def _of_libzmq(observed: Observed, kind: str) -> bool:
    """Whether its own threads opened most of a kind, by the recording; without one, nothing speaks against it."""
    alive = [each for each in observed.recorded.alive if each.kind == kind] if observed.recorded is not None else []
    inside = sum(each.origin.count for each in alive if any(map(is_libzmq, each.origin.frames)))
    return 2 * inside >= sum(each.origin.count for each in alive)


def is_libzmq(frame: Frame) -> bool:
    """Whether a frame is libzmq's own, or of the extension of Python that holds it."""
    return "zmq" in frame.module.rpartition("/")[2] or frame.function.startswith(("zmq_", "zmq::"))


def _blocked(observed: Observed, identity: str, threads: list[Standstill]) -> Finding:
    kind = mailbox_kind(observed)
    trend = observed.growth.leaks().get(kind)
    if trend is None:
        return _without_growth(observed, identity, threads)
    per_second = round(trend.per_second, 3)
    return Finding(
        id=identity,
        severity="leak",
        title=f"{_names(threads)} blocked for {threads[0].seconds:.0f} s, and {_MAILBOXES[kind]} leak beside it:"
        f" {rate_text(per_second)}",
        count=observed.counts.get(mailbox_kind(observed), 0),
        per_second=per_second,
        evidence={**_evidence(threads), **_closed(observed), **_forecast(observed, trend)},
        cause=_IO_CAUSE if identity == IO_BLOCKED else _REAPER_CAUSE,
        remedy=_IO_REMEDY if identity == IO_BLOCKED else _REAPER_REMEDY,
        next=f"leakline watch {observed.pid}",
        threshold=_BLOCKED_THRESHOLD,
        harmless="Never: no tcp or ipc message of this context moves."
        if identity == IO_BLOCKED
        else "Never: no closed socket of this context is reaped.",
    )


def _without_growth(observed: Observed, identity: str, threads: list[Standstill]) -> Finding:
    return Finding(
        id=identity,
        severity="warning",
        title=f"{_names(threads)} blocked for {threads[0].seconds:.0f} s",
        count=observed.counts.get(mailbox_kind(observed), 0),
        per_second=0.0,
        evidence=_evidence(threads),
        cause=_IO_CAUSE if identity == IO_BLOCKED else _REAPER_CAUSE,
        remedy=_IO_REMEDY if identity == IO_BLOCKED else _REAPER_REMEDY,
        next=f"leakline watch {observed.pid}",
        threshold=_BLOCKED_THRESHOLD,
        harmless="Never: no tcp or ipc message of this context moves."
        if identity == IO_BLOCKED
        else "Never: no closed socket of this context is reaped.",
    )


def _names(threads: list[Standstill]) -> str:
    what = {"io": "ZeroMQ I/O thread", "reaper": "ZeroMQ reaper", "unknown": "ZeroMQ background thread"}[
        threads[0].role
    ]
    named = ", ".join(dict.fromkeys(thread.name for thread in threads[:3]))
    return f"{what} {named}" if len(threads) == 1 else f"{len(threads)} × {what} ({named})"


def _evidence(threads: list[Standstill]) -> dict[str, object]:
    return {
        "threads": [
            {
                "tid": thread.tid,
                "name": thread.name,
                "wait_channel": thread.wait_channel,
                "blocked_seconds": round(thread.seconds, 1),
                "context_switches": thread.context_switches,
                "samples": thread.samples,
            }
            for thread in threads
        ],
    }


def _closed(observed: Observed) -> dict[str, object]:
    """How often the reaper woke: while the I/O thread is blocked, once for each socket that is closed."""
    wakes = sum(thread.wakes_per_second for thread in observed.threads if thread.role == "reaper")
    return {"sockets closed per second": round(wakes, 1)} if wakes >= 1 else {}


def _forecast(observed: Observed, trend: Trend) -> dict[str, object]:
    growth = observed.growth
    left = seconds_to(growth.limit, growth.total, growth.per_second)
    slots = seconds_to(MAX_SOCKETS, observed.counts.get("eventfd", 0), trend.per_second)
    beside = {kind: risen for kind, risen in kept_by_blocked(observed).items() if kind != mailbox_kind(observed)}
    forecast: dict[str, object] = {
        "risen": trend.risen,
        **({"connections_kept_beside_them": beside} if beside else {}),
        "limit": growth.limit,
        "seconds_to_limit": None if left is None else round(left, 1),
    }
    if slots is not None and (left is None or slots < left):
        forecast["seconds_to_default_max_sockets"] = round(slots, 1)
    return forecast


def max_sockets(observed: Observed) -> list[Finding]:
    """A context that is full: as many eventfds as fit into the default `max_sockets`, standing still, the limit far
    away.
    """
    growth, eventfds = observed.growth, observed.counts.get("eventfd", 0)
    far = growth.limit is None or growth.total < _FAR_FROM_LIMIT * growth.limit
    if not observed.uses_libzmq or eventfds not in _FULL or not far or "eventfd" in growth.leaks():
        return []
    return [
        Finding(
            id="zmq.max-sockets",
            severity="warning",
            title=f"a ZeroMQ context is full: {grouped(eventfds)} eventfds, max_sockets is"
            f" {grouped(MAX_SOCKETS)} by default",
            count=eventfds,
            per_second=0.0,
            evidence={
                "eventfds": eventfds,
                "default_max_sockets": MAX_SOCKETS,
                "total": growth.total,
                "limit": growth.limit,
            },
            cause="zmq_socket() now fails with EMFILE, `Too many open files`, but the process is far from its"
            " limit: it is the context's own max_sockets that is used up, by sockets that are open or closed but"
            " not reaped.",
            remedy="Raising `ulimit -n` does not help. If sockets leak, that is what to repair (a blocked ZeroMQ"
            " thread is reported beside this). If the load is real, set ZMQ_MAX_SOCKETS on the context before its"
            " first socket.",
            harmless="So many eventfds are what the process needs.",
            next=f"leakline ls {observed.pid}",
            threshold=f"{_FULL.start} to {_FULL.stop - 1} eventfds that do not grow, below"
            f" {_FAR_FROM_LIMIT:.0%} of the limit",
        )
    ]
