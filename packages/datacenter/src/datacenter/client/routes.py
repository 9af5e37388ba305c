"""The routes of one client: which services it knows, which peers serve them, and what it tells its user of that.

A name that is called is watched at the broker from then on. Its instances' endpoints are connected; on the route
`auto` a relay is asked for when none of them is reached for a while, and left once one is. The client hands calls to
`Route.peers`, and is told when there may be more of them (`flush`) or when a name cannot be had (`fail`).

Runs in the thread of the client's event loop. The session's news come from the reactor and are carried over; they
reach a client that nobody holds only weakly, so that it can be collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import weakref
from collections.abc import Callable

from datacenter import wire
from datacenter.backoff import Backoff
from datacenter.calls import Pending
from datacenter.client.route import ClientOptions, Route, State, StateEvent
from datacenter.errors import DatacenterError, DeadlineError, NoRelayError, no_such_service
from datacenter.routes.direct import Peer, Peers
from datacenter.session import Session
from datacenter.sockets.context import SocketContext
from datacenter.wire import Resolution

log = logging.getLogger("datacenter.client")


class Routes:
    """`by_name`: the routes of the services that were called; one that cannot be had is forgotten. `peers`: theirs.

    flush(route) sends what waits there, as far as there is room; fail(pending, error) ends a call; on_reply(peer,
    reply, pending) and on_unsent(calls) are for the peers.
    """

    def __init__(
        self,
        session: Session,
        context: SocketContext,
        loop: asyncio.AbstractEventLoop,
        options: ClientOptions,
        *,
        flush: Callable[[Route], None],
        fail: Callable[[Pending, DatacenterError], None],
        on_reply: Callable[[Peer, wire.FromService, Pending], None],
        on_unsent: Callable[[list[Pending]], None],
    ) -> None:
        self.by_name: dict[str, Route] = {}
        self.peers = Peers(self._new_peer, loop, self._new_backoff)
        self._session = session
        self._context = context
        self._loop = loop
        self._options = options
        self._flush = flush
        self._fail = fail
        self._on_reply = on_reply
        self._on_unsent = on_unsent
        self._listeners: list[Callable[[StateEvent], object]] = []
        self._was_connected = session.state == "connected"
        self._weak = weakref.ref(self)
        self._unlisten = session.on_state(functools.partial(_session_news, self._weak))

    # --- names

    def add(self, name: str) -> Route:
        """The route of a service that is called for the first time: its name is resolved and watched."""
        route = self.by_name[name] = Route(name, self._options.route)
        self._session.watch(name, "rpc", _Listener(self._weak, route))
        if route.relay_wanted:
            self._session.want_relay(name, "rpc")
        return route

    def why_unsent(self, target: str, waited_s: float) -> DatacenterError:
        """Why a call of `target` found no instance in `waited_s`."""
        if self._session.limits is None:
            return self._session.why_not(waited_s)
        service = target.partition(".")[0]
        route = self.by_name.get(service)
        for problem in (self.peers.problems.get(endpoint) for endpoint in (route.endpoints if route else ())):
            if problem is not None:
                return type(problem)(problem.message, problem.hint)
        return DeadlineError(
            f"{target} was not sent: no instance of {service} could be reached, or took it, in time",
            f"See who serves it: `datacenter ls`; start one: `datacenter serve MODULE:{service}`.",
        )

    def _resolved(self, route: Route, news: Resolution | DatacenterError) -> None:
        if self.by_name.get(route.name) is not route:
            return
        if isinstance(news, NoRelayError) and route.choice == "auto":
            log.info("%s is only called directly: %s", route.name, news.message)
            return
        if isinstance(news, DatacenterError) or news.state == "unknown":
            error = news if isinstance(news, DatacenterError) else no_such_service(route.name, self._session.address)
            self._forget(route, error)
            return
        route.broker = self._session.numeric_address
        self._connect(route.accept(news))
        self.refresh(route, "no instance is registered")
        self._flush(route)

    def _forget(self, route: Route, error: DatacenterError) -> None:
        """Ends what waits for a name that cannot be had; the next call asks again."""
        del self.by_name[route.name]
        _cancel(route.relay_timer)
        self._session.unwatch(route.name, "rpc", _Listener(self._weak, route))
        for endpoint in route.endpoints:
            self.peers.unwant(endpoint)
        for pending in route.waiting:
            self._fail(pending, copy.copy(error))  # raised by many, each with its own traceback

    def _connect(self, endpoints: tuple[list[str], list[str]]) -> None:
        new, gone = endpoints
        for endpoint in new:
            self.peers.want(endpoint)
        for endpoint in gone:
            self.peers.unwant(endpoint)

    # --- peers

    def _new_backoff(self) -> Backoff:
        return Backoff(self._options.reconnect_min_ms / 1000, self._options.reconnect_max_ms / 1000)

    def _new_peer(self, endpoint: str, backoff: Backoff) -> Peer:
        return Peer(
            endpoint,
            self._context,
            self._loop,
            backoff=backoff,
            reconnect_min_ms=self._options.reconnect_min_ms,
            reconnect_max_ms=self._options.reconnect_max_ms,
            insecure=self._options.insecure,
            on_change=self._peer_changed,
            on_reply=self._on_reply,
            on_room=self._flush_all,
            on_unsent=self._on_unsent,
        )

    def _flush_all(self) -> None:
        for route in self.by_name.values():
            self._flush(route)

    def _peer_changed(self, peer: Peer, reason: str) -> None:
        if peer.state == "ended":
            self.peers.ended(peer)
        for route in tuple(self.by_name.values()):
            if peer.endpoint in route.endpoints or peer in route.peers:
                self.refresh(route, reason)
                self._flush(route)

    # --- which peers serve a route

    def refresh(self, route: Route, reason: str) -> None:
        """Recomputes which peers serve a route, and reports its state."""
        route.peers = route.usable(self.peers.get)
        if route.choice == "auto":
            self._choose(route)
        if route.peers:
            if route.state not in ("connected", "restored"):
                self.report(route, "restored" if route.was_connected else "connected", route.peers[0].endpoint)
            route.was_connected = True
        elif route.state in ("connected", "restored"):
            self.report(route, "lost", reason)
            self.report(route, "resolving", reason)

    def _choose(self, route: Route) -> None:
        """On the route `auto`: asks for a relay when no instance is reached for a while, and leaves it once one is."""
        if route.peers:
            _cancel(route.relay_timer)
            route.relay_timer = None
            if route.relay_wanted and route.peers[0].endpoint != route.relay:
                self._connect(route.want_relay(False))
        elif route.resolution is not None and route.resolution.instances and route.relay_timer is None:
            limits = self._session.limits
            again_s = 2 * limits.lease_s if route.was_connected and limits is not None else 0.0
            route.relay_timer = self._loop.call_later(self._options.relay_after_s + again_s, self._use_relay, route)

    def _use_relay(self, route: Route) -> None:
        route.relay_timer = None
        if self.by_name.get(route.name) is route and not route.peers and route.endpoints:
            self._session.want_relay(route.name, "rpc")
            self._connect(route.want_relay(True))

    # --- states

    def on_state(self, listener: Callable[[StateEvent], object]) -> Callable[[], None]:
        """Calls `listener(event)` at each change of state; returns what removes it."""
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    def report(self, route: Route, state: State, reason: str) -> None:
        """Tells the listeners of a route's state, if it is another than before."""
        if route.state != state:
            route.state = state
            self._tell(StateEvent(state, route.name, reason))

    def _session_changed(self, state: str, reason: str) -> None:
        if state == "connected":
            self._tell(StateEvent("restored" if self._was_connected else "connected", "", reason))
            self._was_connected = True
        elif state == "lost":
            self._tell(StateEvent("lost", "", reason))

    def _tell(self, event: StateEvent) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a state listener raised")

    # --- the way from the reactor, and the end

    def _from_reactor(self, function: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended; `AsyncClient.close_now` will clean up
            self._loop.call_soon_threadsafe(function, *args)

    def unwatch(self) -> None:
        """No news of the session any more. From any thread."""
        self._unlisten()
        for route in self.by_name.values():
            self._session.unwatch(route.name, "rpc", _Listener(self._weak, route))

    def close(self) -> None:
        """Ends every route and every connection; what waits is the client's to end."""
        self.unwatch()
        for route in self.by_name.values():
            _cancel(route.relay_timer)
        self.by_name.clear()
        self.peers.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _session_news(weak: weakref.ref[Routes], state: str, reason: str) -> None:
    routes = weak()
    if routes is not None:
        routes._from_reactor(routes._session_changed, state, reason)


class _Listener:
    """Carries a route's news from the reactor to the client's loop. Equal if it is of the same route."""

    __slots__ = ("route", "routes")

    def __init__(self, routes: weakref.ref[Routes], route: Route) -> None:
        self.routes = routes
        self.route = route

    def __call__(self, news: Resolution | DatacenterError) -> None:
        routes = self.routes()
        if routes is not None:
            routes._from_reactor(routes._resolved, self.route, news)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Listener) and other.route is self.route

    def __hash__(self) -> int:
        return id(self.route)
