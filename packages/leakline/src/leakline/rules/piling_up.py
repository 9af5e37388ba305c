"""`tcp.accepted-piling-up`, `tcp.outgoing-piling-up`, `socket.listeners-piling-up`: what a kind of socket grows by when
its sockets are in good order and simply never closed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from leakline.facts import Descriptor, Finding
from leakline.figures import rate_text
from leakline.rules.grouping import address, top
from leakline.rules.observed import Observed
from leakline.rules.ruled_out import ruled_out
from leakline.rules.sorts import (
    ACCEPTED,
    LISTENERS,
    OUTGOING,
    THRESHOLD,
    forecast,
    fresh_of,
    growing_by,
    rate_of,
    sort_of,
)


class _Sort(msgspec.Struct, frozen=True):
    """What is said of one sort: `by` names a socket's group, under which evidence counts it."""

    title: str  # with the group that has most, and the rate
    groups: str
    by: Callable[[Descriptor], str]
    cause: str
    remedy: str
    harmless: str


def _listener(each: Descriptor) -> str:
    socket = each.socket
    if socket is None or socket.local is None:
        return "?"
    return address(socket.local) + (f" ({socket.service})" if socket.service else "")


def _remote(each: Descriptor) -> str:
    socket = each.socket
    if socket is None or socket.remote is None:
        return "?"
    return address(socket.remote) + (f" ({socket.service})" if socket.service else "")


def _listening_host(each: Descriptor) -> str:
    # Each has another port or path, so the host alone groups them.
    socket = each.socket
    if socket is None or socket.local is None:
        return each.kind
    return f"{socket.local.host} ({socket.protocol})" if socket.local.port else socket.protocol


_SORTS = {
    ACCEPTED: _Sort(
        title="connections accepted on {most} are not closed: {rate}",
        groups="accepted_on",
        by=_listener,
        cause="The server accepts a connection, and no path closes it: the handler returned or failed without"
        " close(), the object is kept in a list, or clients stay connected and nothing ends idle ones.",
        remedy="Close in the handler on every path (`with conn:` around it, try/finally), and end silent peers"
        " (`conn.settimeout(60)`, keep-alive, a bound on connections).",
        harmless="Clients come and mean to stay: as many as there are users. It then ends at their number.",
    ),
    OUTGOING: _Sort(
        title="connections to {most} are not closed: {rate}",
        groups="to",
        by=_remote,
        cause="A client or a session is made for each request or task and not closed; or a pool without a bound, or"
        " responses whose bodies are never read, so that their connections never go back to the pool.",
        remedy="Make one client for the process and share it, with a bounded pool; or close it on every path"
        " (`with requests.Session() as session:`, `async with`).",
        harmless="A pool is still filling up to its bound: observe for longer.",
    ),
    LISTENERS: _Sort(
        title="listening sockets are not closed: {rate}, on {most}",
        groups="listening_on",
        by=_listening_host,
        cause="A server, or a port to be called back on, is made per task, per reload or per attempt, and the one"
        " before stays open.",
        remedy="Close the old listener before the new one is made (`server.close()`), or keep one.",
        harmless="Each belongs to something that lives on, such as a plug-in or a tenant.",
    ),
}


def piling_up(observed: Observed) -> list[Finding]:
    """A finding for each sort of socket that is most of what its kind grows by."""
    return [_finding(observed, sort) for sort in _SORTS if growing_by(observed, sort)]


def _finding(observed: Observed, sort: str) -> Finding:
    growth, told = growing_by(observed, sort), _SORTS[sort]
    fresh = [each for kind in growth for each in fresh_of(observed, kind) if sort_of(each) == sort]
    groups = top(told.by(each) for each in fresh)
    evidence: dict[str, object] = {told.groups: groups}
    if sort == ACCEPTED:
        evidence["from"] = top(each.socket.remote.host for each in fresh if each.socket and each.socket.remote)
        evidence["with_unread_bytes"] = sum(bool(each.socket and each.socket.receive_queue) for each in fresh)
    return Finding(
        id=sort,
        severity="leak",
        title=told.title.format(most=next(iter(groups)), rate=rate_text(rate_of(growth))),
        count=sum(observed.counts.get(kind, 0) for kind in growth),
        per_second=rate_of(growth),
        evidence={**evidence, **forecast(observed, growth)},
        cause=told.cause,
        remedy=told.remedy,
        harmless=told.harmless,
        next=f"leakline diff {observed.pid}",
        threshold=THRESHOLD,
        ruled_out=ruled_out(observed, sort),
    )
