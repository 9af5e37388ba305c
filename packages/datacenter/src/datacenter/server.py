"""A serving process: one socket at which services are called, their registration, and their end. What becomes of a
call is in `dispatcher`.

The end, by close() or because somebody drained it (`datacenter drain`): it leaves the registry, tells late calls to go
elsewhere (`moved`), finishes what runs, answers what is left.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

import zmq

from datacenter import options, runtime
from datacenter.client import DEFAULT_BROKER
from datacenter.dispatcher import Dispatcher, ServiceOptions
from datacenter.errors import (
    AddressError,
    BrokerUnreachableError,
    ClosedError,
    DatacenterError,
    NotServableError,
)
from datacenter.listening import bind_listener, checked_advertise, is_wildcard
from datacenter.service import Service
from datacenter.session import Session, SessionOptions
from datacenter.sockets import admission, bundles
from datacenter.sockets.connections import Connections
from datacenter.sockets.events import MonitorEvent
from datacenter.sockets.loop import LoopSocket
from datacenter.wire import Instance, ServiceType

log = logging.getLogger("datacenter.service")
#: So long may clients take to hear that the server ends, at least and at most; between these, what is left of drain_s.
GRACE_S: Final = 0.25
MAX_GRACE_S: Final = 5.0


class Registrar(Protocol):
    """Who keeps instances registered: a session with a broker, or a supervisor that has one. Thread-safe."""

    @property
    def is_connected(self) -> bool:
        """Whether the registry can be told anything now."""

    def register(
        self, name: str, type_: ServiceType, instance: Instance, on_drain: Callable[[], object]
    ) -> concurrent.futures.Future[int]: ...

    def unregister(self, instance_id: str) -> concurrent.futures.Future[None]: ...

    def statistics(self) -> dict[str, int | float | str | None]: ...


class Server:
    """Serves one or several services at one address, in the running event loop. `async with`, or `start` and `close`.

    listen: where to bind; port 0 takes a free port below the ephemeral range (see `bind_listener`).
    advertise: the address that clients are told, where it is not the one bound (needed for tcp://0.0.0.0). A host name
    is resolved at start, which may block: clients are told its number. advertise_host: the same for the host alone; the
    port is the one bound.
    insecure: allows an address beyond loopback although nothing protects the traffic.
    registrar: who registers its instances, instead of a session of its own with `broker`. family: what to tell of the
    processes that serve together with this one, when asked for statistics.
    `datacenter drain` ends it: once all its services were drained it closes by itself; await `drained()` to go on then.
    Raises AddressInUseError, AddressError, InsecureAddressError at start; `registered` BrokerUnreachableError.
    Use from another thread is not allowed; after a fork it raises ForkedError.
    """

    def __init__(
        self,
        services: Service | Sequence[Service],
        *,
        broker: str = DEFAULT_BROKER,
        listen: str = "tcp://127.0.0.1:0",
        advertise: str = "",
        advertise_host: str = "",
        insecure: bool = False,
        options: ServiceOptions | None = None,
        registrar: Registrar | None = None,
        family: Callable[[], Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        self.services = _by_name([services] if isinstance(services, Service) else services)
        self.options = options or ServiceOptions()
        self.endpoint = ""
        self._broker = broker
        self._listen = listen
        self._advertise = advertise
        self._advertise_host = advertise_host
        self._insecure = insecure
        self._registrar = registrar
        self._started = False
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._draining: set[str] = set()  # services whose new calls are told to go elsewhere
        self._left: set[str] = set()  # services that were taken out of the registry, or are being
        self._drains: dict[str, asyncio.Task[None]] = {}
        self._drained = asyncio.Event()
        self._clients = Connections()
        self._alone = asyncio.Event()  # no client is connected
        self._alone.set()
        self._instances: dict[str, Instance] = {}
        self._own_session: Session | None = None
        self._family = family
        self._calls = Dispatcher(self.services, self.options, self._draining, self.lease_left_s, self._tell)

    async def __aenter__(self) -> Server:
        self.start()
        try:
            await self.registered()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Binds and begins to register. Calls may arrive from now on. Once only: ClosedError afterwards."""
        if self._started:
            raise ClosedError(f"{self!r} was started before", "Make a new Server.")
        leased = [service.name for service in self.services.values() if service.leased]
        if leased and self._registrar is not None:
            raise NotServableError(
                f"{leased[0]} is leased, and a worker cannot know how long its lease holds",
                "Serve it by processes with sessions of their own: without --workers.",
            )
        self._loop = asyncio.get_running_loop()
        self._runtime = runtime.acquire()
        try:
            self._advertise = self._advertise and checked_advertise(self._advertise)
            if self._registrar is None:
                self._own_session = self._runtime.session(self._broker, SessionOptions(insecure=self._insecure))
            session = self._registrar or self._own_session
            assert session is not None
            self._session: Registrar = session
            try:
                self._stream = self._bind()
            except BaseException:
                self._release_session()
                raise
        except BaseException:
            runtime.release(self._runtime)
            raise
        self._started = True
        self._calls.start(self._stream, self.endpoint)
        self._registering = [self._register(service) for service in self.services.values()]
        runtime.remember(self)

    async def registered(self) -> None:
        """Waits until the broker has registered every service. Raises BrokerUnreachableError, WrongTypeError,
        RegistryFullError, ForkedError.
        """
        self._runtime.check_process()
        for future in self._registering:
            wrapped = asyncio.wrap_future(future)
            # Whoever stops waiting for it need not hear how it ends: shield() forgets it, and asyncio would complain.
            wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.shield(wrapped)

    def lease_left_s(self, name: str) -> float:
        """For how many seconds the instance of this service is certainly in the registry; 0 while nothing is certain,
        and for a worker, whose supervisor has the session.

        Looked at after a pause of the process (SIGSTOP, a machine that slept) it is 0 before anything else is known.
        """
        instance = self._instances.get(name)
        session = self._own_session
        return 0.0 if instance is None or session is None else session.lease_left_s(instance.id)

    async def drained(self) -> None:
        """Waits until all services were drained by `datacenter drain` (`Session.drain`), and the server has closed."""
        await self._drained.wait()

    async def close(self, *, drain_s: float | None = None) -> None:
        """Leaves the registry, finishes what runs (for `drain_s` at most), answers what is left, closes: its
        address is free again.

        Idempotent: every caller waits for the same end. Bounded. Cancelling it shortens the wait, no more. Nothing
        happens in a forked child.
        """
        if self._closed or not self._started or self._runtime.pid != os.getpid():
            return
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(self.options.drain_s if drain_s is None else drain_s))
        cancelled = False
        while not self._closing.done():
            try:
                await asyncio.shield(self._closing)
            except asyncio.CancelledError:
                cancelled = True
                self._hurry.set()
        if cancelled:
            raise asyncio.CancelledError

    async def _close(self, drain_s: float) -> None:
        end = self._loop.time() + drain_s
        await self._leave(self.services)
        self._draining.update(self.services)
        await self._until(self._calls.idle.wait, drain_s)
        if self._calls.in_flight:
            log.warning("%d calls were still running when %r closed", self._calls.in_flight, self)
        await self._calls.cancel()
        # A client that has heard of the end, and has all its answers, ends its connection. While one is connected a
        # call may be on its way to us, or an answer be unread: its libzmq drops what it has received and not handed
        # over when we end the connection (IMMEDIATE).
        await self._until(self._alone.wait, min(MAX_GRACE_S, max(GRACE_S, end - self._loop.time())))
        self._shut()
        await runtime.apart(self._give_back)

    async def _until(self, condition: Callable[[], Coroutine[Any, Any, object]], seconds: float) -> None:
        """Waits for `condition()`, but no longer than `seconds`, and not at all once somebody is in a hurry."""
        waiting = [asyncio.ensure_future(condition()), asyncio.ensure_future(self._hurry.wait())]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for future in waiting:
            future.cancel()

    def _asked_to_drain(self, name: str) -> None:
        with contextlib.suppress(RuntimeError):  # in the reactor; the loop may have ended
            self._loop.call_soon_threadsafe(self._start_to_drain, name)

    def _start_to_drain(self, name: str) -> None:
        if self._closing is None and name not in self._drains:
            log.info("%r: %s is drained", self, name)
            self._drains[name] = self._loop.create_task(self._drain(name))

    async def _drain(self, name: str) -> None:
        await self._leave([name])
        if self._draining.issuperset(self.services):
            await self.close()
            self._drained.set()

    def close_now(self) -> None:
        """Closes from outside the loop, for the exit hook: in the loop's own thread while it runs. Bounded."""
        if self._started and not self._closed:
            runtime.run_in_loop(self._loop, self._shut)
            self._give_back()

    def counts(self) -> dict[str, int]:
        """How many calls came and what became of them, and how many are open now; {} before the start. Any thread."""
        return self._calls.statistics() if self._started else {}

    async def _tell(self) -> dict[str, Any]:
        """The answer to `datacenter stats`, which is itself a call in flight."""
        counts = self.counts()
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "statistics": {**counts, "in_flight": counts["in_flight"] - 1},
            **(await self._family() if self._family is not None else {}),
        }

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, and what is open now. Raises ForkedError."""
        self._runtime.check_process()
        return {
            **self._calls.statistics(),
            "endpoint": self.endpoint,
            "admission": asdict(admission.of_process().statistics()),
            "session": self._session.statistics(),
        }

    def __repr__(self) -> str:
        ending = self._draining.issuperset(self.services)
        state = "closed" if self._closed else "draining" if ending else self.endpoint or "not started"
        return f"<Server {', '.join(self.services)} {state}, {self._calls.in_flight} in flight>"

    # --- start and end

    def _bind(self) -> LoopSocket:
        owned = self._runtime.context.socket(
            zmq.ROUTER,
            owner=f"service {','.join(self.services)}",
            router_mandatory=True,
            max_message_bytes=bundles.largest_message(self.options.max_message_bytes),
            linger_ms=options.GOODBYE_LINGER_MS,
            on_event=self._on_event,
        )
        self._clients.born(owned.generation)
        try:
            self.endpoint = bind_listener(owned, self._listen, insecure=self._insecure)
            if self._advertise_host:
                self._advertise = checked_advertise(f"{self._advertise_host}:{self.endpoint.rpartition(':')[2]}")
            if is_wildcard(self.endpoint) and not self._advertise:
                raise AddressError(
                    f"clients cannot connect to {self.endpoint}",
                    "Say which address they should use: --advertise tcp://HOST:PORT, or listen at one address.",
                )
        except BaseException:
            owned.close()
            raise
        return LoopSocket(
            owned,
            self._loop,
            self._calls.on_message,
            on_malformed=self._calls.on_malformed,
            on_refused=self._calls.on_refused,
            bundled=True,
        )

    def _register(self, service: Service) -> concurrent.futures.Future[int]:
        instance = Instance(
            id=f"{service.name}-{uuid.uuid4().hex[:12]}",
            endpoint=self._advertise or self.endpoint,
            methods=tuple(method.description() for method in service.methods.values()),
            pid=os.getpid(),
            host=socket.gethostname(),
            metadata=service.metadata,
            max_message_bytes=self.options.max_message_bytes,
        )
        self._instances[service.name] = instance
        drain = functools.partial(self._asked_to_drain, service.name)
        return self._session.register(service.name, "rpc", instance, drain)

    def _on_event(self, event: MonitorEvent) -> None:
        with contextlib.suppress(RuntimeError):  # in the hub's thread; the loop may have ended
            self._loop.call_soon_threadsafe(self._connection_event, event)

    def _connection_event(self, event: MonitorEvent) -> None:
        self._clients.take(event)
        if self._clients.count():
            self._alone.clear()
        else:
            self._alone.set()

    async def _leave(self, names: Iterable[str]) -> None:
        """Out of the registry; from then on new calls are told to go elsewhere. Until then they are done: a client
        that does not know yet would choose this instance again, which now has the fewest calls in flight.
        """
        names = [name for name in names if name not in self._left]
        self._left.update(names)
        leaving = [asyncio.wrap_future(self._session.unregister(self._instances[name].id)) for name in names]
        patience_s = options.CLOSE_DEADLINE_S / 4 if self._session.is_connected else 0.0
        done, unanswered = await asyncio.wait(leaving, timeout=patience_s) if leaving else ((), ())
        self._draining.update(names)
        for future in unanswered:
            future.cancel()
        for future in done:
            if not future.cancelled() and isinstance(future.exception(), DatacenterError):
                log.info("the broker was not told that %r ends: %s", self, future.exception())

    def _shut(self) -> None:
        self._closed = True
        runtime.forget(self)
        self._calls.close()

    def _give_back(self) -> None:
        self._release_session()
        self._stream.owned.wait_unbound(runtime.patience_s() / 2)  # whoever comes next finds the address free
        runtime.release(self._runtime)

    def _release_session(self) -> None:
        if self._own_session is not None:
            self._runtime.release_session(self._own_session)


def _by_name(services: Sequence[Service]) -> dict[str, Service]:
    found: dict[str, Service] = {}
    for service in services:
        if service.name in found:
            raise NotServableError(f"two services are named {service.name!r}", "Give one of them another name.")
        found[service.name] = service
    if not found:
        raise NotServableError("no service was given", "Pass at least one Service.")
    return found


async def serve(
    services: Service | Sequence[Service],
    *,
    broker: str = DEFAULT_BROKER,
    listen: str = "tcp://127.0.0.1:0",
    advertise: str = "",
    insecure: bool = False,
    options: ServiceOptions | None = None,
    stop: Awaitable[object] | None = None,
) -> None:
    """Serves until `stop` is done, the task is cancelled or all services were drained; then drains and closes. Waits
    for a broker that is not there yet.
    """
    server = Server(services, broker=broker, listen=listen, advertise=advertise, insecure=insecure, options=options)
    server.start()
    try:
        try:
            await server.registered()
        except BrokerUnreachableError as error:
            log.warning("%s; the service registers as soon as one answers", error.message)
        drained = asyncio.ensure_future(server.drained())
        stopped = asyncio.ensure_future(stop) if stop is not None else drained
        try:
            await asyncio.wait({drained, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                stopped.result()
        finally:
            drained.cancel()
            stopped.cancel()
    finally:
        await server.close()
