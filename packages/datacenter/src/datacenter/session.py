"""A process's one long-lived control connection to a broker: register, resolve, watch, and heartbeats both ways.

A DEALER, never a REQ: a lost reply cannot wedge it. All state of one connection is in `Connection`, which is thrown
away as a whole when the connection ends, so nothing of an old one (counters, half-open handshakes) can poison the
next.

What survives a connection: the instances registered, the names watched, and the requests that still wait. After each
Welcome they are said again, so a broker that restarts with an empty memory knows everything again within one
heartbeat.

Lives in the reactor's thread. The public methods are thread-safe and return futures; listeners are called in the
reactor's thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import zmq

from datacenter import clock, options, wire
from datacenter.backoff import Backoff
from datacenter.errors import (
    CATALOGUE,
    BrokerUnreachableError,
    ClosedError,
    DatacenterError,
    NoRelayError,
    NotServableError,
    ProtocolError,
)
from datacenter.futures import chain, fail, succeed
from datacenter.reactor import Reactor
from datacenter.session_state import Connection, Registration, Request, SessionOptions
from datacenter.sockets.context import SocketContext
from datacenter.sockets.events import MonitorEvent
from datacenter.sockets.loop import LoopSocket
from datacenter.version import __version__
from datacenter.watches import Watches
from datacenter.wire import Instance, Resolution, ServiceType

__all__ = ["Session", "SessionOptions", "SessionState"]

log = logging.getLogger("datacenter.session")
T = TypeVar("T")

#: what the broker has to know although nobody waits for its answer any more (a registration is asked for again)
_LASTING = wire.Resolve | wire.Unwatch | wire.Unregister
SessionState = Literal["connecting", "connected", "lost", "closed"]


class Session:
    """See the module. Made and shared by the runtime: one for each broker that the process talks to.

    address: the broker's, or those of several that share a registry, with commas between: one of them is used, and the
    next one when it does not answer, ends, or has lost its registry.
    """

    def __init__(self, address: str, context: SocketContext, reactor: Reactor, options: SessionOptions) -> None:
        self.address = address
        self._addresses = address.split(",")
        self._turn = random.randrange(len(self._addresses))  # processes spread over the brokers
        self.numeric_address = self._addresses[self._turn]  # of the broker that is spoken to, or tried
        self._lease_until = float("-inf")
        self.state: SessionState = "connecting"
        self.options = options
        self._context = context
        self._reactor = reactor
        self._connection: Connection | None = None
        self._backoff = Backoff(options.reconnect_min_ms / 1000, options.reconnect_max_ms / 1000)
        self._requests: dict[int, Request] = {}
        self._next_request = 0
        self._registrations: dict[str, Registration] = {}
        self._watches = Watches(self._ask, self._nobody_watches)
        self._listeners: list[Callable[[SessionState, str], None]] = []
        self._connected = concurrent.futures.Future[wire.Welcome]()
        #: the limits of the broker that was spoken to last; unlike `welcome` it outlives the connection
        self.limits: wire.Welcome | None = None
        self._problem: DatacenterError | None = None  # why the broker does not take us, while it does not
        self._timer: asyncio.TimerHandle | None = None
        self._reopen_timer: asyncio.TimerHandle | None = None
        # The first socket is made in the caller's thread, so that a wrong address is the caller's error.
        stream_socket = self._new_socket()
        reactor.call(self._start, stream_socket)

    # --- thread-safe

    @property
    def welcome(self) -> wire.Welcome | None:
        """What the broker said of itself on the present connection; None while there is none."""
        connection = self._connection
        return None if connection is None else connection.welcome

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be told anything now."""
        return self.state == "connected"

    def wait_connected(self, deadline_s: float) -> wire.Welcome:
        """Blocks until the broker has answered once. Raises BrokerUnreachableError."""
        try:
            return self._connected.result(deadline_s)
        except concurrent.futures.TimeoutError:
            raise self.why_not(deadline_s) from None

    def why_not(self, waited_s: float) -> DatacenterError:
        """Why there is no connection: the broker's own reason if it gave one, else that nobody answered."""
        if self._problem is not None:
            return copy.copy(self._problem)  # raised by many, each with its own traceback
        return BrokerUnreachableError(
            f"no broker answered at {self.address} within {waited_s:g} s",
            "Start one with `datacenter up`, or give the address of another: --broker tcp://HOST:PORT.",
        )

    def register(
        self,
        name: str,
        type_: ServiceType,
        instance: Instance,
        on_drain: Callable[[], object] = lambda: None,
        on_epoch: Callable[[int], object] = lambda _: None,
    ) -> concurrent.futures.Future[int]:
        """Registers an instance and keeps it registered over every reconnect. The future gives its first epoch.

        `on_drain()` is called in the reactor when somebody asks that the instance ends in order, `on_epoch(epoch)` each
        time that it was registered.
        """

        def ask() -> concurrent.futures.Future[int]:
            registration = self._registrations[instance.id] = Registration(name, type_, instance, on_drain, on_epoch)
            return self._ask_for(registration)

        return self._in_reactor(ask)

    def unregister(self, instance_id: str) -> concurrent.futures.Future[None]:
        """Takes an instance out of the registry at once."""

        def ask() -> concurrent.futures.Future[None]:
            self._registrations.pop(instance_id, None)
            return self._ask(lambda request: wire.Unregister(request, instance_id))

        return self._in_reactor(ask)

    def resolve(self, name: str, type_: ServiceType) -> concurrent.futures.Future[Resolution]:
        """What a name stands for, once the broker knows (it waits while the broker settles). Cancel it to stop waiting.

        The future raises WrongTypeError, RegistryFullError.
        """
        future = concurrent.futures.Future[Resolution]()

        def listener(news: Resolution | DatacenterError) -> None:
            if isinstance(news, Resolution) and news.state == "settling" and not future.cancelled():
                return
            self._watches.remove(name, type_, listener)
            if isinstance(news, Resolution):
                succeed(future, news)
            else:
                fail(future, copy.copy(news))  # other listeners are told the same one

        self.watch(name, type_, listener)
        future.add_done_callback(lambda done: self.unwatch(name, type_, listener) if done.cancelled() else None)
        return future

    def list_services(self) -> concurrent.futures.Future[tuple[Resolution, ...]]:
        """All names that the broker knows."""
        return self._in_reactor(lambda: self._ask(wire.ListServices))

    def drain(self, target: str) -> concurrent.futures.Future[Resolution]:
        """Asks that all instances of a service end in order, or the one with this id; the future tells which they are.

        It raises NoSuchServiceError. Raises NotServableError at once for what cannot be a name.
        """
        try:
            target.encode()
        except UnicodeEncodeError:  # half a character, of a terminal that speaks no UTF-8
            raise NotServableError(
                f"{target!r} cannot name a service or an instance", "See what there is: `datacenter ls`."
            ) from None
        return self._in_reactor(lambda: self._ask(lambda request: wire.Drain(request, target)))

    def watch(self, name: str, type_: ServiceType, listener: Callable[[Resolution | DatacenterError], None]) -> None:
        """Calls `listener` (in the reactor) with the resolution of `name` now and at every change, or with why there
        is none.
        """
        self._reactor.call(self._watches.add, name, type_, listener)

    def unwatch(self, name: str, type_: ServiceType, listener: Callable[[Resolution | DatacenterError], None]) -> None:
        """Ends one `watch`. Nothing happens if it has ended, or the session."""
        with contextlib.suppress(ClosedError):
            self._reactor.call(self._watches.remove, name, type_, listener)

    def want_relay(self, name: str, type_: ServiceType) -> None:
        """Asks the broker for a relay of a name that is watched; its address comes with a resolution. Why there is none
        is told to the listeners as an error.
        """
        with contextlib.suppress(ClosedError):
            self._reactor.call(self._watches.want_relay, name, type_)

    def on_state(self, listener: Callable[[SessionState, str], None]) -> Callable[[], None]:
        """Calls `listener(state, reason)` in the reactor at each change; returns what removes it."""
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    def lease_left_s(self, instance_id: str) -> float:
        """For how many seconds this instance is certainly in the registry, counted from the moment at which the latest
        heartbeat that the broker has answered was sent; 0 while nothing is certain. After a pause of this process it is
        0 before anything else is heard. Any thread.
        """
        registration = self._registrations.get(instance_id)
        if registration is None or registration.epoch is None:
            return 0.0
        return max(0.0, self._lease_until - clock.now())

    def close(self, deadline_s: float) -> None:
        """Says goodbye and closes the connection. Idempotent; bounded by `deadline_s`."""
        if self.state == "closed" and self._connection is None:
            return
        try:
            self._in_reactor(self._close).result(deadline_s)
        except ClosedError:
            return  # the reactor has ended: at the interpreter's end others close as well
        except concurrent.futures.TimeoutError:
            log.warning("session with %s did not close within %.1f s", self.address, deadline_s)

    def statistics(self) -> dict[str, int | float | str | None]:
        """State and counts, for people and metrics. `silent_s`: since the broker was heard; None without connection."""
        connection = self._connection
        return {
            "broker": self.address,
            "state": self.state,
            "requests": len(self._requests),
            "registrations": len(self._registrations),
            "watches": len(self._watches),
            "silent_s": None if connection is None else round(time.monotonic() - connection.last_received, 3),
        }

    def __repr__(self) -> str:
        counts = f"{len(self._registrations)} registered, {len(self._watches)} watched"
        return f"<Session {self.address} {self.state}, {counts}>"

    # --- in the reactor: connection

    def _in_reactor(self, ask: Callable[[], concurrent.futures.Future[T]]) -> concurrent.futures.Future[T]:
        outer = concurrent.futures.Future[T]()

        def run() -> None:
            try:
                chain(ask(), outer)
            except Exception as error:
                outer.set_exception(error)

        self._reactor.call(run)
        return outer

    def _start(self, owned: Any) -> None:
        self._open(owned)
        self._tick()

    def _new_socket(self) -> Any:
        owned = self._context.socket(
            zmq.DEALER,
            owner=f"session {self.address}",
            on_event=self._on_event,
            immediate=True,
            receive_high_water=options.RECEIVE_ALL,
            linger_ms=options.GOODBYE_LINGER_MS,  # the goodbye should arrive
            reconnect_min_ms=self.options.reconnect_min_ms,
            reconnect_max_ms=self.options.reconnect_max_ms,
        )
        try:
            self.numeric_address = owned.connect(
                self._addresses[self._turn % len(self._addresses)], insecure=self.options.insecure
            )
        except BaseException:
            owned.close()
            raise
        return owned

    def _open(self, owned: Any = None) -> None:
        self._reopen_timer = None
        if self.state == "closed":
            if owned is not None:
                owned.close()
            return
        try:
            owned = owned or self._new_socket()
        except DatacenterError as error:  # the descriptor limit, most likely: it may pass
            log.warning("no session with %s: %s", self.address, error)
            self._reopen_timer = self._reactor.loop.call_later(self._backoff.next(), self._open)
            return
        stream = LoopSocket(
            owned, self._reactor.loop, self._on_message, on_writable=self._say_rest, on_malformed=self._on_malformed
        )
        self._connection = Connection(stream, time.monotonic())
        self._say_hello()

    def _drop(self, reason: str) -> None:
        """Ends the present connection and opens the next one after a pause."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.stream.close()
        self._turn += 1
        self._lease_until = float("-inf")
        if self.state == "connected":
            self._set_state("lost", reason)
        if self.state != "closed":
            self._reopen_timer = self._reactor.loop.call_later(self._backoff.next(), self._open)

    def _on_event(self, event: MonitorEvent) -> None:
        # In the hub's thread. A generation names the socket, so an event about an old one is recognised in the reactor.
        if event.name in ("HANDSHAKE_SUCCEEDED", "DISCONNECTED"):
            with contextlib.suppress(ClosedError):
                self._reactor.call(self._connection_event, event.name, event.generation)

    def _connection_event(self, name: str, generation: int) -> None:
        connection = self._connection
        if connection is None or connection.stream.owned.generation != generation:
            return
        if name == "DISCONNECTED":
            self._drop("the connection ended")
        else:
            self._say_hello()

    def _say_hello(self) -> None:
        connection = self._connection
        if connection is None or connection.hello_sent:
            return
        hello = wire.Hello(wire.PROTOCOL, __version__, os.getpid(), socket.gethostname(), _process_name())
        connection.hello_sent = self._send(hello)
        connection.last_received = time.monotonic()  # the broker's silence begins when it was spoken to

    def _say(self, message: wire.ToBroker) -> None:
        """Sends it now, or after what waits already, as soon as there is room."""
        connection = self._connection
        if connection is not None and (connection.unsent or not self._send(message)):
            connection.unsent.append(message)

    def _say_rest(self) -> None:
        """There is room again."""
        self._say_hello()
        connection = self._connection
        while connection is not None and connection.unsent:
            message = connection.unsent[0]
            wanted = isinstance(message, _LASTING) or getattr(message, "request", 0) in self._requests
            if wanted and not self._send(message):
                return
            connection.unsent.popleft()

    def _send(self, message: wire.ToBroker) -> bool:
        connection = self._connection
        if connection is None or not connection.stream.send(wire.encode(message)):
            return False
        connection.last_sent = time.monotonic()
        return True

    def _set_state(self, state: SessionState, reason: str) -> None:
        if state == self.state:
            return
        self.state = state
        log.info("session with %s: %s (%s)", self.address, state, reason)
        for listener in tuple(self._listeners):
            try:
                listener(state, reason)
            except Exception:
                log.exception("a session listener raised")

    def _close(self) -> concurrent.futures.Future[None]:
        done = concurrent.futures.Future[None]()
        self._set_state("closed", "closed by its owner")
        for timer in (self._timer, self._reopen_timer):
            if timer is not None:
                timer.cancel()
        if self.welcome is not None:
            self._send(wire.Bye())
        self._drop("closed")
        for request in self._requests.values():
            fail(request.future, ClosedError("the session was closed"))
        self._requests.clear()
        done.set_result(None)
        return done

    # --- in the reactor: time

    def _tick(self) -> None:
        if self.state == "closed":
            return
        heartbeat_s = self.options.heartbeat_s
        try:
            heartbeat_s = self._beat(time.monotonic())
        finally:
            self._timer = self._reactor.loop.call_later(min(heartbeat_s / 2, 0.5), self._tick)

    def _beat(self, now: float) -> float:
        """What is due now; returns the seconds between two heartbeats."""
        connection = self._connection
        heartbeat_s = self.options.heartbeat_s
        if connection is not None:
            welcome = connection.welcome
            heartbeat_s = welcome.heartbeat_s if welcome is not None else heartbeat_s
            missed = welcome.missed_heartbeats if welcome is not None else self.options.missed_heartbeats
            if connection.hello_sent and now - connection.last_received > heartbeat_s * missed:
                self._drop(f"nothing heard for {missed} heartbeats")
            elif not connection.hello_sent and self._is_silent(connection, now):
                self._drop(f"{self.numeric_address} took no connection")
            elif welcome is not None and now - connection.last_beat >= heartbeat_s * 0.9:
                self._send_heartbeat(connection, now)
                self._register_again(only_unconfirmed=True)
        for number in [number for number, request in self._requests.items() if request.deadline <= now]:
            fail(self._requests.pop(number).future, self.why_not(self.options.request_s))
        return heartbeat_s

    def _is_silent(self, connection: Connection, now: float) -> bool:
        return len(self._addresses) > 1 and now - connection.opened > options.NEXT_BROKER_S

    def _send_heartbeat(self, connection: Connection, now: float) -> None:
        """Also where much else is said: its answer tells how long the leases hold."""
        connection.beat(now, clock.now())
        self._send(wire.Heartbeat(connection.beats))

    # --- in the reactor: messages

    def _ask(self, build: Callable[[int], wire.ToBroker]) -> concurrent.futures.Future[Any]:
        future = concurrent.futures.Future[Any]()
        if self.state == "closed":
            future.set_exception(ClosedError("the session is closed", "Make a new Client or Service."))
            return future
        self._next_request += 1
        message = build(self._next_request)
        self._requests[self._next_request] = Request(message, future, time.monotonic() + self.options.request_s)
        if self.welcome is not None:
            self._say(message)
        return future

    def _on_malformed(self, _routing_id: bytes) -> None:
        self._drop("the broker sent a message of more than one frame")

    def _on_message(self, _routing_id: bytes, frame: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            message = wire.decode_from_broker(frame)
        except ProtocolError as error:
            self._problem = ProtocolError(
                f"what answers at {self.address} is not a broker of datacenter: {error.message}",
                "Check the address and the port.",
            )
            self._drop(self._problem.message)
            return
        connection.last_received = time.monotonic()
        self._HANDLERS[type(message)](self, message)

    def _welcomed(self, message: wire.Welcome) -> None:
        if message.protocol != wire.PROTOCOL:
            self._problem = ProtocolError(
                f"the broker at {self.address} speaks protocol {message.protocol}, this process {wire.PROTOCOL}",
                f"Install the same version on both sides (broker: {message.version}, here: {__version__}).",
            )
            self._drop(self._problem.message)
            return
        assert self._connection is not None
        self._connection.welcome = self.limits = message
        self._watches.registry = message.registry
        self._problem = None
        self._backoff.reset()
        for number, request in tuple(self._requests.items()):
            if isinstance(request.message, wire.Resolve):
                del self._requests[number]  # every name is asked for again, below
            else:
                self._say(request.message)
        for registration in self._registrations.values():
            registration.problem = ""  # it is worth a line again
        self._register_again(only_unconfirmed=False)
        self._watches.ask_again()
        if not self._connected.done():
            self._connected.set_result(message)
        self._set_state("connected", f"broker {message.broker_id}, version {message.version}")

    def _register_again(self, *, only_unconfirmed: bool) -> None:
        for registration in self._registrations.values():
            if not only_unconfirmed or registration.epoch is None:
                registration.epoch = None
                if registration.request not in self._requests:  # else it has been said, or waits for room
                    self._ask_quietly(registration)

    def _ask_for(self, registration: Registration) -> concurrent.futures.Future[int]:
        def build(request: int) -> wire.Register:
            registration.request = request
            return wire.Register(request, registration.name, registration.type, registration.instance)

        return self._ask(build)

    def _ask_quietly(self, registration: Registration) -> None:
        asked = self._ask_for(registration)

        def answered(future: concurrent.futures.Future[int]) -> None:
            problem = "" if future.cancelled() or future.exception() is None else str(future.exception())
            if problem and problem != registration.problem:
                log.error("%s is not registered: %s", registration.name, problem)
            registration.problem = problem

        asked.add_done_callback(answered)

    def _reintroduce(self, _message: wire.Reintroduce) -> None:
        connection = self._connection
        if connection is not None and connection.welcome is not None:
            connection.welcome = None
            connection.hello_sent = False
            connection.unsent.clear()  # all is said again after the Welcome
            self._say_hello()

    def _registered(self, message: wire.Registered) -> None:
        request = self._requests.pop(message.request, None)
        if request is not None and isinstance(request.message, wire.Register):
            registration = self._registrations.get(request.message.instance.id)
            if registration is not None:
                registration.epoch = message.epoch
                registration.on_epoch(message.epoch)
            succeed(request.future, message.epoch)

    def _unregistered(self, message: wire.Unregistered) -> None:
        request = self._requests.pop(message.request, None)
        if request is not None:
            succeed(request.future, None)

    def _listing(self, message: wire.Listing) -> None:
        request = self._requests.pop(message.request, None)
        if request is not None:
            succeed(request.future, message.services)

    def _refused(self, message: wire.Refused) -> None:
        error = CATALOGUE.get(message.code, DatacenterError)(message.message, message.hint)
        if not message.request:  # it refuses the session as a whole
            self._problem = error
            self._drop(error.message)
            return
        request = self._requests.pop(message.request, None)
        if request is None:
            return
        if isinstance(request.message, wire.Resolve):
            self._watches.tell((request.message.name, request.message.type), error)
        fail(request.future, error)

    def _resolved(self, message: wire.Resolved) -> None:
        request = self._requests.pop(message.request, None)
        if request is not None:
            succeed(request.future, message.resolution)
        self._watches.update(message.resolution)

    def _changed(self, message: wire.Changed) -> None:
        self._watches.update(message.resolution)

    def _draining(self, message: wire.Draining) -> None:
        request = self._requests.pop(message.request, None)
        if request is not None:
            succeed(request.future, message.service)

    def _drain_requested(self, message: wire.DrainRequested) -> None:
        registration = self._registrations.get(message.instance_id)
        if registration is not None:
            registration.on_drain()

    def _shutdown(self, _message: wire.Shutdown) -> None:
        self._drop("the broker ended in order")

    def _heartbeat(self, message: wire.BrokerHeartbeat) -> None:
        connection = self._connection
        sent = connection.sent.get(message.number) if connection is not None else None
        if sent is not None:
            self._lease_until = max(self._lease_until, sent + message.holds_s)

    # --- in the reactor: names

    def _nobody_watches(self, name: str) -> None:
        if self.welcome is not None:
            self._say(wire.Unwatch(name))

    def _no_relay(self, message: wire.NoRelay) -> None:
        self._watches.tell((message.name, message.type), NoRelayError(message.message, message.hint))

    _HANDLERS: ClassVar[dict[type, Callable[[Session, Any], None]]] = {
        wire.Welcome: _welcomed,
        wire.BrokerHeartbeat: _heartbeat,
        wire.Reintroduce: _reintroduce,
        wire.Registered: _registered,
        wire.Unregistered: _unregistered,
        wire.Resolved: _resolved,
        wire.Changed: _changed,
        wire.Listing: _listing,
        wire.Refused: _refused,
        wire.Shutdown: _shutdown,
        wire.NoRelay: _no_relay,
        wire.DrainRequested: _drain_requested,
        wire.Draining: _draining,
    }


def _process_name() -> str:
    return os.path.basename(sys.argv[0]) or "python"
