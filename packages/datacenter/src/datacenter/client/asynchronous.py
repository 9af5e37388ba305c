"""`AsyncClient`: finds services by name and calls their methods, in the caller's event loop.

    async with AsyncClient() as client:
        greeting = await client.call("greeter.hello", "Ann", returns=str)

What happens to a call:
1. It is encoded at once (later changes to the arguments do not matter) and waits at its service's route.
2. A ready instance with room takes it: the one with the fewest calls in flight. A known service that is away is
   waited for; a name that was never registered fails at once.
3. It ends once: with the result, with the service's typed error, with LostError (connection ended after it was
   sent), or with DeadlineError. It is sent twice only if the method is declared idempotent.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

import msgspec

from datacenter import runtime, wire
from datacenter.calls import Pending, checked_deadline, decoder
from datacenter.client.refusals import Refusals
from datacenter.client.route import DEFAULT_BROKER, ClientOptions, Route, StateEvent
from datacenter.client.routes import Routes
from datacenter.errors import (
    BadArgumentsError,
    BusyError,
    ClosedError,
    DatacenterError,
    DeadlineError,
    LostError,
    TooLargeError,
    WrongLoopError,
    no_such_service,
)
from datacenter.routes.direct import Peer, least_busy
from datacenter.session import SessionOptions
from datacenter.sockets.loop_fork import part_in_children
from datacenter.wire import Resolution, ServiceType

log = logging.getLogger("datacenter.client")
T = TypeVar("T")
MAX_CACHED_TARGETS: Final = 10_000
MOST: Final = 2**63
SWEEP_S: Final = 0.005


class AsyncClient:
    """Calls services by name, in one event loop. Make it inside the loop; use it as `async with`, or end it by `await
    close()`.

    broker: the broker's address. One session is shared by all clients and services of the process.
    Use from another loop or thread raises WrongLoopError, after a fork ForkedError, after close ClosedError.
    One instance is one connection, whatever the number of calls, services and tasks.
    """

    def __init__(self, broker: str = DEFAULT_BROKER, *, options: ClientOptions | None = None) -> None:
        self.options = options or ClientOptions()
        self._loop = asyncio.get_running_loop()
        part_in_children(self._loop)
        self._runtime = runtime.acquire()
        try:
            self._session = self._runtime.session(
                broker,
                SessionOptions(
                    reconnect_min_ms=self.options.reconnect_min_ms,
                    reconnect_max_ms=self.options.reconnect_max_ms,
                    insecure=self.options.insecure,
                ),
            )
        except BaseException:
            runtime.release(self._runtime)
            raise
        self._epoch = self._runtime.epoch
        self._closed = False
        self._next_id = wire.FIRST_CALL_ID
        self._targets: dict[str, tuple[str, str]] = {}
        self._routes = Routes(
            self._session,
            self._runtime.context,
            self._loop,
            self.options,
            flush=self._flush,
            fail=self._fail,
            on_reply=self._replied,
            on_unsent=self._unsent,
        )
        self._by_name = self._routes.by_name
        self._refusals = Refusals(self._loop, self._by_name, self._dispatch, self._routes.refresh, self._end)
        self._in_flight: dict[Pending, None] = {}  # an ordered set; a cancelled call stays until it is answered or due
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._counts = {"calls": 0, "lost": 0, "resent": 0, "deadlines": 0, "refused": 0}
        runtime.remember(self)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @overload
    def call(
        self, target: str, /, *args: Any, returns: type[T], deadline_s: float | None = None, **keywords: Any
    ) -> asyncio.Future[T]: ...
    @overload
    def call(
        self, target: str, /, *args: Any, returns: None = None, deadline_s: float | None = None, **keywords: Any
    ) -> asyncio.Future[Any]: ...

    def call(
        self, target: str, /, *args: Any, returns: Any = None, deadline_s: float | None = None, **keywords: Any
    ) -> asyncio.Future[Any]:
        """Calls "SERVICE.METHOD" and gives a future of its result; await it, gather it, or let it run.

        returns: the type to decode the result into (checked); without it plain Python values.
        deadline_s: when the call ends at the latest; default `options.deadline_s`.
        Raises at once: NotServableError (target), BadArgumentsError (cannot be encoded), TooLargeError, BusyError
        (too many in flight), ClosedError, WrongLoopError, ForkedError. The future raises: NoSuchServiceError,
        WrongTypeError, NoSuchMethodError, BadArgumentsError, RemoteError, BusyError, LostError, DeadlineError,
        BadResultError, BrokerUnreachableError.
        """
        if asyncio._get_running_loop() is not self._loop or self._closed:
            self._check_usable()
        try:
            service, method = self._targets.get(target) or self._split(target)
        except TypeError:  # it cannot be hashed, so it is no text
            service, method = wire.split_target(target)
        if len(self._in_flight) >= self.options.max_in_flight:
            self._check_room()
        seconds = self.options.deadline_s if deadline_s is None else checked_deadline(deadline_s)
        decode = decoder(returns)
        frame = self._encode(target, service, method, seconds, args, keywords)
        route = self._by_name.get(service) or self._routes.add(service)
        self._check_size(route, target, frame)
        future: asyncio.Future[Any] = self._loop.create_future()
        now = self._loop.time()
        pending = Pending(self._next_id, target, frame, now, now + seconds, future, decode, self._retry)
        self._counts["calls"] += 1
        if seconds <= 0:
            pending.fail(self._too_late(pending))
            return future
        self._in_flight[pending] = None
        if self._timer is None or pending.deadline < self._timer_at:
            self._set_timer(pending.deadline)
        self._dispatch(route, pending)
        return future

    async def resolve(self, name: str, *, type_: ServiceType = "rpc", deadline_s: float | None = None) -> Resolution:
        """What `name` stands for now: its state and its instances. Calls do this by themselves.

        Raises NoSuchServiceError if it was never registered, WrongTypeError if it is of another type,
        BrokerUnreachableError, DeadlineError, NotServableError for what cannot be a name.
        """
        self._check_usable()
        wire.check_name("service", name)
        seconds = self.options.deadline_s if deadline_s is None else checked_deadline(deadline_s)
        answer = asyncio.wrap_future(self._session.resolve(name, type_))
        done, _ = await asyncio.wait({answer}, timeout=max(0.0, seconds))
        if not done:
            answer.cancel()
            raise self._unresolved(name, seconds)
        return self._known(answer.result())

    def on_state(self, listener: Callable[[StateEvent], object]) -> Callable[[], None]:
        """Calls `listener(event)` in this client's loop at each change of state; returns what removes it."""
        self._runtime.check_process()
        return self._routes.on_state(listener)

    async def close(self) -> None:
        """Ends every connection; calls in flight end with ClosedError. Idempotent; bounded."""
        if self._closed or self._runtime.pid != os.getpid():
            return
        self._check_loop()
        self._shut()
        # The session says goodbye and sockets are closed in other threads: wait there, not in the loop.
        await runtime.apart(self._give_back)

    def close_now(self) -> None:
        """Closes from outside the loop, for the exit hook: in the loop's own thread while it runs. Bounded."""
        if not self._closed:
            runtime.run_in_loop(self._loop, self._shut)
            self._give_back()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self._runtime.pid == os.getpid() and not sys.is_finalizing():
            self._closed = True
            self._routes.unwatch()
            runtime.give_up("an AsyncClient", self._give_back)  # its sockets warn and are closed on their own

    def statistics(self) -> dict[str, Any]:
        """Counts since the client was made, and what is open now. Raises ForkedError."""
        self._runtime.check_process()
        return {
            **self._counts,
            "in_flight": len(self._in_flight),
            "waiting": sum(len(route.waiting) for route in self._by_name.values()),
            "services": {route.name: route.state for route in self._by_name.values()},
            "peers": {peer.endpoint: peer.state for peer in self._routes.peers.all()},
            "session": self._session.statistics(),
        }

    def __repr__(self) -> str:
        if self._closed:
            return "<AsyncClient closed>"
        ready = sum(peer.state == "ready" for peer in self._routes.peers.all())
        session, calls = self._session, len(self._in_flight)
        return f"<AsyncClient {session.address} {session.state}, {ready} connected, {calls} in flight>"

    # --- checks

    def _split(self, target: str) -> tuple[str, str]:
        names = wire.split_target(target)
        if len(self._targets) < MAX_CACHED_TARGETS:
            self._targets[target] = names
        return names

    def _check_usable(self) -> None:
        if not self._epoch[0]:
            self._runtime.check_process()
        if self._closed:
            raise ClosedError("this client is closed", "Make a new one.")
        with contextlib.suppress(RuntimeError):
            if asyncio.get_running_loop() is self._loop:
                return
        self._check_loop()

    def _check_loop(self) -> None:
        self._runtime.check_process()
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise WrongLoopError(
                "this AsyncClient belongs to another event loop or thread",
                "Make one AsyncClient in each loop, or use Client, which any thread may share.",
            )

    # --- a call's way

    def _encode(
        self, target: str, service: str, method: str, seconds: float, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> bytes:
        self._next_id = wire.next_call_id(self._next_id)
        timeout_ms = max(1, int(seconds * 1000))
        try:
            frame = wire.encode(wire.OutgoingCall(self._next_id, service, method, timeout_ms, args, keywords))
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise BadArgumentsError(
                f"the arguments of {target} cannot be encoded: {error}",
                "Send numbers, strings, bytes, lists, dicts, dataclasses or msgspec.Struct.",
            ) from None
        return frame

    def _check_size(self, route: Route, target: str, frame: bytes) -> None:
        limits = self._session.limits
        if limits is None or len(frame) <= min(limits.max_message_bytes, route.max_message_bytes or MOST):
            return
        most = min(limits.max_message_bytes, route.max_message_bytes or MOST)
        raise TooLargeError(
            f"the call of {target} has {len(frame):,} bytes; the limit is {most:,}",
            "Send less at once, or start broker and service with a larger --max-message-bytes.",
        )

    def _check_room(self) -> None:
        """Raises BusyError, unless some of the calls in flight were cancelled: those nobody waits for."""
        for pending in [pending for pending in self._in_flight if pending.future.done()]:
            del self._in_flight[pending]
        for route in self._by_name.values():
            route.forget_ended()
        if len(self._in_flight) >= self.options.max_in_flight:
            self._counts["refused"] += 1
            raise BusyError(
                f"{len(self._in_flight)} calls are in flight, as many as this client takes",
                "Wait for some, or raise ClientOptions.max_in_flight.",
            )

    def _dispatch(self, route: Route, pending: Pending) -> None:
        if not route.waiting:
            peer = least_busy(route.peers)
            if peer is not None and peer.send(pending, pending.frame):
                pending.sent = True
                return
        route.waiting.append(pending)
        self._flush(route)
        if not route.peers:
            self._routes.report(route, "resolving", "no instance is connected yet")

    def _unsent(self, calls: list[Pending]) -> None:
        """A connection could not take these after all: they go another way, or wait."""
        for pending in calls:
            route = self._by_name.get(pending.target.partition(".")[0])
            pending.sent = pending.resends > 0
            if route is not None and not pending.future.done():
                self._dispatch(route, pending)

    def _flush(self, route: Route) -> None:
        while route.waiting:
            pending = route.waiting[0]
            if pending.future.done():  # cancelled, or its deadline has passed: it is never sent
                self._in_flight.pop(pending, None)
                route.waiting.popleft()
                continue
            peer = least_busy(route.peers)
            if peer is None:
                return
            try:
                self._check_size(route, pending.target, pending.frame)  # made before the limit was known, perhaps
            except TooLargeError as error:
                self._fail(pending, error)
                route.waiting.popleft()
                continue
            if peer.send(pending, pending.frame):
                pending.sent = True
                route.waiting.popleft()

    def _retry(self, pending: Pending, _error: LostError) -> bool:
        service, _, method = pending.target.partition(".")
        route = self._by_name.get(service)
        if (
            self._closed
            or route is None
            or method not in route.idempotent
            or pending.resends >= self.options.max_resends
        ):
            self._counts["lost"] += 1
            self._in_flight.pop(pending, None)
            return False
        self._counts["resent"] += 1
        pending.resends += 1
        self._dispatch(route, pending)
        return True

    def _fail(self, pending: Pending, error: DatacenterError) -> None:
        self._in_flight.pop(pending, None)
        pending.fail(error)

    def _replied(self, peer: Peer, reply: wire.FromService, pending: Pending) -> None:
        if type(reply) is wire.Failure and self._refusals.take(peer, reply, pending):
            pass  # it goes on elsewhere
        elif type(reply) is wire.Failure and reply.code == LostError.code:  # a relay's word: its instance was lost
            pending.lost(LostError(reply.message, reply.hint))
        elif type(reply) is wire.Failure and reply.code == DeadlineError.code and pending.resends:
            self._fail(pending, DeadlineError(reply.message, "An earlier attempt may have been executed.", sent=True))
        else:
            self._end(pending, reply)
        if not peer.pending:
            self._routes.peers.end_if_idle(peer.endpoint)

    def _end(self, pending: Pending, reply: wire.FromService) -> None:
        self._in_flight.pop(pending, None)
        pending.answer(reply)

    # --- deadlines: one timer, at the earliest deadline known when it was set

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._sweep)

    def _sweep(self) -> None:
        """Ends the calls whose deadline has passed. The next sweep is at the earliest deadline of those that are
        left.
        """
        self._timer = None
        now = self._loop.time()
        sent_to: dict[int, str] = {}
        for peer in self._routes.peers.all():
            for number in [number for number, pending in peer.pending.items() if pending.deadline <= now]:
                del peer.pending[number]
                sent_to[number] = peer.endpoint
            self._routes.peers.end_if_idle(peer.endpoint)
        for pending in [pending for pending in self._in_flight if pending.deadline <= now]:
            if not pending.future.done():
                self._counts["deadlines"] += 1
            self._fail(pending, self._too_late(pending, sent_to.get(pending.id, "")))
        for route in self._by_name.values():
            route.forget_ended()
        if self._in_flight:
            # Not sooner than SWEEP_S: each look goes over all calls in flight.
            self._set_timer(max(now + SWEEP_S, min(pending.deadline for pending in self._in_flight)))

    def _too_late(self, pending: Pending, sent_to: str = "") -> DatacenterError:
        if pending.sent:
            where = f" to {sent_to}" if sent_to else ""
            return DeadlineError(
                f"{pending.target} was sent{where} but not answered by its deadline",
                "It may have been executed.",
                sent=True,
            )
        return self._routes.why_unsent(pending.target, self._loop.time() - pending.made)

    # --- names

    def _unresolved(self, name: str, waited_s: float) -> DatacenterError:
        if self._session.limits is None:
            return self._session.why_not(waited_s)
        return DeadlineError(
            f"{name} was not resolved within {waited_s:g} s", "The broker is away, or has just started."
        )

    def _known(self, resolution: Resolution) -> Resolution:
        if resolution.state == "unknown":
            raise no_such_service(resolution.name, self._session.address)
        return resolution

    # --- the end

    def _shut(self) -> None:
        self._closed = True
        runtime.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        closed = ClosedError("the client was closed while this call was in flight", "Await calls before closing.")
        for pending in self._in_flight:
            pending.fail(copy.copy(closed), quietly=True)  # raised by many, each with its own traceback
        self._in_flight.clear()
        self._routes.close()

    def _give_back(self) -> None:
        self._runtime.release_session(self._session)
        runtime.release(self._runtime)
