"""A call that was refused unexecuted goes to another instance.

busy: each instance is asked once at most. A relay chooses the instance itself, so it is asked as often as there are
instances, with a pause before each time. When nobody is left the caller gets BusyError.
moved: the instance ends; its endpoint is avoided until the next resolution. A relay's endpoint never is: it is asked
again after a pause, until the deadline.

Runs in the thread of the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from datacenter import wire
from datacenter.calls import Pending
from datacenter.client.route import Route
from datacenter.errors import BusyError, MovedError
from datacenter.routes.direct import Peer, least_busy

#: before a relay is asked again, and between two looks for an instance that could not be asked at once
REFUSED_PAUSE_S: Final = 0.01
#: So many looks for an instance that has not refused, but is not connected or has no room; then `busy` is the answer.
MAX_LOOKS: Final = 25


class Refusals:
    """routes: the client's, by service. dispatch(route, pending) sends a call to any instance that is not avoided;
    refresh(route, reason) is told that `route.avoid` has grown; end(pending, refusal) gives up.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        routes: Mapping[str, Route],
        dispatch: Callable[[Route, Pending], None],
        refresh: Callable[[Route, str], None],
        end: Callable[[Pending, wire.Failure], None],
    ) -> None:
        self._loop = loop
        self._routes = routes
        self._dispatch = dispatch
        self._refresh = refresh
        self._end = end

    def take(self, peer: Peer, reply: wire.Failure, pending: Pending) -> bool:
        """Whether `reply` is a refusal after which the call goes on. False: it is the call's end."""
        route = self._routes.get(pending.target.partition(".")[0])
        if route is None or pending.future.done() or reply.code not in (MovedError.code, BusyError.code):
            return False
        pending.sent = pending.resends > 0  # an attempt that was lost may have been executed
        by_relay = peer.endpoint == route.relay
        if reply.code == MovedError.code and by_relay:
            self._loop.call_later(REFUSED_PAUSE_S, self._send_again, reply, pending)
        elif reply.code == MovedError.code:
            route.avoid.add(peer.endpoint)
            self._refresh(route, "the instance ends")
            self._dispatch(route, pending)
        else:
            pending.refused_by += (peer.endpoint,)
            return self._later(route, reply, pending, 0) if by_relay else self._ask(route, reply, pending, 0)
        return True

    def _send_again(self, refusal: wire.Failure, pending: Pending) -> None:
        route = self._routes.get(pending.target.partition(".")[0])
        if route is None or pending.future.done():
            self._end(pending, refusal)
        else:
            self._dispatch(route, pending)

    def _ask(self, route: Route, refusal: wire.Failure, pending: Pending, looks: int) -> bool:
        """Sends a call to an instance that was not busy for it yet, now or later; False: there is none."""
        left = _not_asked(route, pending)
        peer = least_busy([peer for peer in route.peers if peer.endpoint in left])
        if peer is None or not peer.send(pending, pending.frame):
            return self._later(route, refusal, pending, looks)
        pending.sent = True
        return True

    def _later(self, route: Route, refusal: wire.Failure, pending: Pending, looks: int) -> bool:
        if looks >= MAX_LOOKS or not _not_asked(route, pending):
            return False
        self._loop.call_later(REFUSED_PAUSE_S, self._look, refusal, pending, looks + 1)
        return True

    def _look(self, refusal: wire.Failure, pending: Pending, looks: int) -> None:
        route = self._routes.get(pending.target.partition(".")[0])
        if route is None or pending.future.done() or not self._ask(route, refusal, pending, looks):
            self._end(pending, refusal)


def _not_asked(route: Route, pending: Pending) -> frozenset[str]:
    """The endpoints at which a call that was refused for `busy` may still be asked for."""
    last, instances = pending.refused_by[-1], _instances(route)
    if last == route.relay:
        return frozenset([last]) if pending.refused_by.count(last) < len(instances) else frozenset()
    return instances.difference(pending.refused_by, route.avoid)


def _instances(route: Route) -> frozenset[str]:
    """Where the instances listen."""
    return frozenset(instance.endpoint for instance in route.resolution.instances) if route.resolution else frozenset()
