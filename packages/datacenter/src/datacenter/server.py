"""A serving process: one socket at which services are called, their registration, and their end.

Queues and their policies: at most `max_in_flight` calls run or wait at once, beyond it a call is refused unexecuted
(BusyError). A reply that finds no room (a client that does not read) waits in the outbox, at most
`max_outbox_per_client` of one client and `max_outbox` in all; beyond it that reply is dropped, counted and logged, and
its call ends by its deadline.

The end, by close() or because somebody drained it (`datacenter drain`): it leaves the registry, tells late calls to go
elsewhere (`moved`), finishes what runs, answers what is left.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import zmq

from datacenter import options, runtime, wire
from datacenter.client import DEFAULT_BROKER
from datacenter.errors import (
    AddressError,
    BadOptionError,
    BadResultError,
    BrokerUnreachableError,
    BusyError,
    CallError,
    ClosedError,
    DatacenterError,
    DeadlineError,
    LostError,
    MovedError,
    NoSuchMethodError,
    NotServableError,
    ProtocolError,
    RemoteError,
    TooLargeError,
)
from datacenter.listening import bind_listener, is_wildcard
from datacenter.methods import Method
from datacenter.outbox import Outbox
from datacenter.service import Service
from datacenter.session import SessionOptions
from datacenter.sockets import admission
from datacenter.sockets.connections import Connections
from datacenter.sockets.events import MonitorEvent
from datacenter.sockets.loop import LoopSocket
from datacenter.sockets.options import SocketOptions
from datacenter.threads import DaemonPool
from datacenter.wire import Instance

log = logging.getLogger("datacenter.service")
#: So long may clients take to hear that the server ends, at least and at most; between these, what is left of drain_s.
GRACE_S: Final = 0.25
MAX_GRACE_S: Final = 5.0
MAX_ERROR_TEXT: Final = 4096


@dataclass(frozen=True)
class ServiceOptions:
    """Named limits of a serving process. Counts, seconds, bytes."""

    max_in_flight: int = options.MAX_RUNNING
    max_outbox: int = options.MAX_OUTBOX
    max_outbox_per_client: int = options.MAX_OUTBOX_PER_CLIENT
    threads: int = options.THREADS
    drain_s: float = options.DRAIN_S
    max_message_bytes: int = SocketOptions().max_message_bytes


class Server:
    """Serves one or several services at one address, in the running event loop. `async with`, or `start` and `close`.

    listen: where to bind; port 0 takes a free port below the ephemeral range (see `bind_listener`).
    advertise: the address that clients are told, where it is not the one bound (needed for tcp://0.0.0.0).
    insecure: allows an address beyond loopback although nothing protects the traffic.
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
        insecure: bool = False,
        options: ServiceOptions | None = None,
    ) -> None:
        self.services = _by_name([services] if isinstance(services, Service) else services)
        self.options = options or ServiceOptions()
        if self.options.threads < 1:
            raise BadOptionError(f"threads={self.options.threads}: methods that block need at least one", "Use 16.")
        self.endpoint = ""
        self._broker = broker
        self._listen = listen
        self._advertise = advertise
        self._insecure = insecure
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
        self._methods = {
            (service.name, method.name): method
            for service in self.services.values()
            for method in service.methods.values()
        }
        self._instances: dict[str, Instance] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}  # strong references: a loop keeps only weak ones
        self._next_task = 0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._counts = {"calls": 0, "errors": 0, "refused": 0, "malformed": 0}

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
        self._loop = asyncio.get_running_loop()
        self._runtime = runtime.acquire()
        try:
            self._session = self._runtime.session(self._broker, SessionOptions(insecure=self._insecure))
            try:
                self._stream = self._bind()
            except BaseException:
                self._runtime.release_session(self._session)
                raise
        except BaseException:
            runtime.release(self._runtime)
            raise
        self._started = True
        self._outbox = Outbox(
            self._stream,
            self._loop,
            max_per_client=self.options.max_outbox_per_client,
            max_all=self.options.max_outbox,
        )
        self._threads = DaemonPool(self.options.threads, "datacenter-method")
        self._registering = [self._register(service) for service in self.services.values()]
        runtime.remember(self)

    async def registered(self) -> None:
        """Waits until the broker has registered every service. Raises BrokerUnreachableError, WrongTypeError,
        RegistryFullError, ForkedError.
        """
        self._runtime.check_process()
        for future in self._registering:
            await asyncio.shield(asyncio.wrap_future(future))

    async def drained(self) -> None:
        """Waits until all services were drained by `datacenter drain` (`Session.drain`), and the server has closed."""
        await self._drained.wait()

    async def close(self, *, drain_s: float | None = None) -> None:
        """Leaves the registry, finishes what runs (for `drain_s` at most), answers what is left, closes.

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
        await self._until(self._idle.wait, drain_s)
        if self._in_flight:
            log.warning("%d calls were still running when %r closed", self._in_flight, self)
        running = list(self._tasks.values())
        for task in running:
            task.cancel()  # answers its call with LostError
        if running:
            await asyncio.wait(running, timeout=options.CLOSE_DEADLINE_S / 4)
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

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, and what is open now. Raises ForkedError."""
        self._runtime.check_process()
        return {
            **self._counts,
            "in_flight": self._in_flight,
            "outbox": self._outbox.waiting,
            "dropped_replies": self._outbox.dropped,
            "endpoint": self.endpoint,
            "admission": asdict(admission.of_process().statistics()),
            "session": self._session.statistics(),
        }

    def __repr__(self) -> str:
        ending = self._draining.issuperset(self.services)
        state = "closed" if self._closed else "draining" if ending else self.endpoint or "not started"
        return f"<Server {', '.join(self.services)} {state}, {self._in_flight} in flight>"

    # --- start and end

    def _bind(self) -> LoopSocket:
        owned = self._runtime.context.socket(
            zmq.ROUTER,
            owner=f"service {','.join(self.services)}",
            router_mandatory=True,
            max_message_bytes=self.options.max_message_bytes,
            linger_ms=options.GOODBYE_LINGER_MS,
            on_event=self._on_event,
        )
        self._clients.born(owned.generation)
        try:
            self.endpoint = bind_listener(owned, self._listen, insecure=self._insecure)
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
            self._on_message,
            on_malformed=self._on_malformed,
            on_refused=self._was_refused,
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
        patience_s = options.CLOSE_DEADLINE_S / 4 if self._session.state == "connected" else 0.0
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
        self._outbox.close()
        self._stream.close()
        self._threads.close()

    def _give_back(self) -> None:
        self._runtime.release_session(self._session)
        runtime.release(self._runtime)

    # --- a call's way

    def _on_malformed(self, _routing_id: bytes) -> None:
        self._counts["malformed"] += 1

    def _on_message(self, routing_id: bytes, frame: bytes) -> None:
        try:
            call = wire.decode_call(frame)
        except ProtocolError:
            self._counts["malformed"] += 1
            return
        self._counts["calls"] += 1
        if call.service in self._draining:
            self._refuse(routing_id, call.id, MovedError(f"{call.service} ends at {self.endpoint}", "Try another one."))
            return
        method = self._methods.get((call.service, call.method))
        if method is None:
            self._refuse(routing_id, call.id, self._no_such_method(call))
            return
        if self._in_flight >= self.options.max_in_flight:
            self._counts["refused"] += 1
            self._refuse(
                routing_id, call.id, BusyError(f"{call.service} has {self._in_flight} calls in flight", "Try later.")
            )
            return
        try:
            arguments = method.arguments(call.args, call.keywords)
        except DatacenterError as error:
            self._refuse(routing_id, call.id, error)
            return
        self._in_flight += 1
        self._idle.clear()
        run = self._run_async if method.is_async else self._run_sync
        self._next_task += 1
        work = run(self._next_task, routing_id, call, method, arguments)
        _start_task(self._loop, self._tasks, self._next_task, work)

    async def _run_async(
        self, task: int, routing_id: bytes, call: wire.Call, method: Method, arguments: tuple[Any, ...]
    ) -> None:
        try:
            result = await method.function(*arguments)
        except BaseException as error:
            self._failed(routing_id, call.id, method, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise  # asked for by code in the main thread: it ends the process
        else:
            self._succeeded(routing_id, call.id, method, result)
        finally:
            self._tasks.pop(task, None)

    async def _run_sync(
        self, task: int, routing_id: bytes, call: wire.Call, method: Method, arguments: tuple[Any, ...]
    ) -> None:
        deadline = time.monotonic() + call.timeout_ms / 1000
        try:
            outcome = await asyncio.wrap_future(
                self._threads.submit(functools.partial(_attempt, method, arguments, deadline))
            )
        except (asyncio.CancelledError, RuntimeError) as error:  # RuntimeError: the pool is closed
            self._failed(routing_id, call.id, method, error)
        else:
            if isinstance(outcome, _Raised):
                self._failed(routing_id, call.id, method, outcome.error)
            else:
                self._succeeded(routing_id, call.id, method, outcome)
        finally:
            self._tasks.pop(task, None)

    def _succeeded(self, routing_id: bytes, number: int, method: Method, result: Any) -> None:
        try:
            frame = wire.encode(wire.OutgoingResult(number, result))
        except Exception as error:
            self._counts["errors"] += 1
            frame = _failure(
                number,
                BadResultError(
                    f"the result of {method.name} cannot be encoded: {error}", "It was executed; see its return type."
                ),
            )
        if len(frame) > self.options.max_message_bytes:
            self._counts["errors"] += 1
            text = (
                f"the result of {method.name} has {len(frame):,} bytes; the limit is {self.options.max_message_bytes:,}"
            )
            frame = _failure(number, TooLargeError(text, "It was executed; return less at once."))
        self._finish(routing_id, frame)

    def _failed(self, routing_id: bytes, number: int, method: Method, error: BaseException) -> None:
        self._counts["errors"] += 1
        if isinstance(error, _NotBegunError):
            wire_error: DatacenterError = error
        elif isinstance(error, asyncio.CancelledError):
            wire_error = LostError(f"the service ended while {method.name} was running", "It was cancelled.")
        else:
            # Whatever it is, a DatacenterError of a call that the method made itself included: it is the method's,
            # not this call's.
            log.info("%s raised", method.name, exc_info=error)
            wire_error = RemoteError(_text_of(error), "", type(error).__name__)
        self._finish(routing_id, _failure(number, wire_error))

    def _finish(self, routing_id: bytes, frame: bytes) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()
        self._outbox.send(routing_id, frame)

    def _refuse(self, routing_id: bytes, number: int, error: DatacenterError) -> None:
        self._outbox.send(routing_id, _failure(number, error))

    def _was_refused(self, routing_id: bytes, frame: bytes, _token: object, gone: bool) -> None:
        if not gone and not self._closed:
            self._outbox.keep(routing_id, frame)

    def _no_such_method(self, call: wire.Call) -> CallError:
        service = self.services.get(call.service)
        if service is None:  # the port has passed to us from a process that served it
            return MovedError(f"{self.endpoint} does not serve {call.service!r}", "Resolve the service again.")
        names = ", ".join(sorted(service.methods))
        return NoSuchMethodError(f"{call.service} has no method {call.method!r}", f"It has: {names or 'none'}.")


class _NotBegunError(DeadlineError):
    """The call's deadline passed while it waited for a thread."""


@dataclass(frozen=True)
class _Raised:
    """What a method raised in its thread; not raised again, because a StopIteration cannot pass through a future."""

    error: BaseException


def _attempt(method: Method, arguments: tuple[Any, ...], deadline: float) -> Any:
    """In a thread of the pool: runs a method, unless its caller has given up while it waited for the thread."""
    if time.monotonic() > deadline:
        return _Raised(_NotBegunError(f"{method.name} was not begun before its deadline", "It was not executed."))
    try:
        result = method.function(*arguments)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"{method.name} returned a coroutine: declare it with `async def`")
        return result
    except BaseException as error:
        return _Raised(error)


def _text_of(error: BaseException) -> str:
    """What an exception says, as text that can be sent, whatever it is."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be had)"
    return text[:MAX_ERROR_TEXT].encode("utf-8", "replace").decode()


def _by_name(services: Sequence[Service]) -> dict[str, Service]:
    found: dict[str, Service] = {}
    for service in services:
        if service.name in found:
            raise NotServableError(f"two services are named {service.name!r}", "Give one of them another name.")
        found[service.name] = service
    if not found:
        raise NotServableError("no service was given", "Pass at least one Service.")
    return found


def _start_task(
    loop: asyncio.AbstractEventLoop, tasks: dict[int, asyncio.Task[None]], number: int, work: Coroutine[Any, Any, None]
) -> None:
    """Starts a task and keeps it in `tasks`, out of which the work takes itself at its end.

    From Python 3.12 it runs at once up to its first wait: a method that never waits costs no turn of the loop.
    """
    if sys.version_info >= (3, 12):
        task = asyncio.Task(work, loop=loop, eager_start=True)
        if not task.done():
            tasks[number] = task
    else:
        tasks[number] = loop.create_task(work)


def _failure(number: int, error: DatacenterError) -> bytes:
    return wire.encode(wire.Failure(number, error.code, error.message, error.hint, getattr(error, "kind", "")))


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
