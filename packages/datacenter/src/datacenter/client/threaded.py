"""`Client`: calls for threads. Any number of them may share one.

    with Client() as client:
        client.call("greeter.hello", "Ann")

It is an AsyncClient in the process's reactor thread: a call hands its arguments over and waits for the result. They are
encoded there: do not change them before the call has ended.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import copy
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from datacenter import runtime
from datacenter.client.asynchronous import AsyncClient
from datacenter.client.route import DEFAULT_BROKER, ClientOptions, StateEvent
from datacenter.errors import ClosedError, WrongLoopError
from datacenter.reactor import Reactor
from datacenter.sockets.threads import in_internal
from datacenter.threads import DaemonPool
from datacenter.wire import Resolution, ServiceType

log = logging.getLogger("datacenter.client")
T = TypeVar("T")
MAX_EVENTS: Final = 1000


class Client:
    """Calls services by name, for threads: any number of them may share one Client. Use it as `with`, or end it by
    `close()`.

    The sockets live in the process's reactor thread; a call hands its arguments over and waits for the result.
    After a fork every method raises ForkedError: make a new Client in the child.
    """

    def __init__(self, broker: str = DEFAULT_BROKER, *, options: ClientOptions | None = None) -> None:
        self._closed = True  # until all is made: then the finaliser has something to do
        _check_thread()
        self._runtime = runtime.acquire()
        self._lock = threading.RLock()
        self._submissions = _Submissions(self._runtime.reactor)
        self._notifier = DaemonPool(1, "datacenter-notify")
        try:
            self._async = self._runtime.reactor.run(_make_async(broker, options))
        except BaseException:
            runtime.release(self._runtime)
            raise
        runtime.forget(self._async)
        runtime.remember(self)
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def call(
        self, target: str, /, *args: Any, returns: type[T], deadline_s: float | None = None, **keywords: Any
    ) -> T: ...
    @overload
    def call(
        self, target: str, /, *args: Any, returns: None = None, deadline_s: float | None = None, **keywords: Any
    ) -> Any: ...

    def call(
        self, target: str, /, *args: Any, returns: Any = None, deadline_s: float | None = None, **keywords: Any
    ) -> Any:
        """Calls "SERVICE.METHOD", waits, and returns its result. Arguments and errors as of `AsyncClient.call`."""
        return self.submit(target, *args, returns=returns, deadline_s=deadline_s, **keywords).result()

    def submit(
        self, target: str, /, *args: Any, returns: Any = None, deadline_s: float | None = None, **keywords: Any
    ) -> concurrent.futures.Future[Any]:
        """Like `call`, but returns a future at once."""
        self._check_usable()

        def start() -> asyncio.Future[Any]:
            return self._async.call(target, *args, returns=returns, deadline_s=deadline_s, **keywords)

        return self._submissions.add(start)

    def resolve(self, name: str, *, type_: ServiceType = "rpc", deadline_s: float | None = None) -> Resolution:
        """As of AsyncClient."""
        self._check_usable()
        return self._runtime.reactor.run(self._async.resolve(name, type_=type_, deadline_s=deadline_s))

    def on_state(self, listener: Callable[[StateEvent], object]) -> Callable[[], None]:
        """Calls `listener(event)` at each change of state, one at a time, in a thread kept for that.

        Returns what removes it. It may block and make calls. While MAX_EVENTS wait for it, further ones are dropped,
        and logged.
        """
        self._runtime.check_process()
        notifier = self._notifier

        def pass_on(event: StateEvent) -> None:
            if notifier.waiting() >= MAX_EVENTS:
                log.warning("a state listener does not return: %s is dropped", event)
            else:
                with contextlib.suppress(RuntimeError):  # closed meanwhile
                    notifier.submit(functools.partial(_notify, listener, event))

        return self._async.on_state(pass_on)

    def statistics(self) -> dict[str, Any]:
        """As of AsyncClient."""
        return self._async.statistics()

    def _check_usable(self) -> None:
        self._runtime.check_process()
        if self._closed:
            raise ClosedError("this client is closed", "Make a new one.")
        _check_thread()

    def close(self) -> None:
        """Ends every connection; calls in flight end with ClosedError. Idempotent; bounded; any thread.

        In a finaliser that the garbage collector runs in a thread of datacenter's own it returns at once, and closes
        in the background. Nothing happens in a forked child: what is the parent's stays the parent's.
        """
        with self._lock:
            if self._closed or self._runtime.pid != os.getpid():
                return
            self._closed = True
        runtime.forget(self)
        parts = functools.partial(_close_parts, self._async, self._runtime, self._submissions, self._notifier)
        if in_internal():
            runtime.start_closer(parts)
        else:
            parts()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self._runtime.pid == os.getpid() and not sys.is_finalizing():
            self._closed = True
            parts = functools.partial(_close_parts, self._async, self._runtime, self._submissions, self._notifier)
            runtime.give_up("a Client", parts)

    def close_now(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._async).replace("AsyncClient", "Client")


def _check_thread() -> None:
    if in_internal():
        raise WrongLoopError(
            "a listener or a finaliser runs in the thread that would have to do this",
            "Call from another thread, or use AsyncClient.",
        )


def _notify(listener: Callable[[StateEvent], object], event: StateEvent) -> None:
    try:
        listener(event)
    except Exception:
        log.exception("a state listener raised")


class _Submissions:
    """Calls on their way from threads to the reactor. One wake-up serves all that are queued when the reactor comes.

    Without a lock: a finaliser may make a call at any allocation, in the middle of another one.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._queue: collections.deque[tuple[Callable[[], asyncio.Future[Any]], concurrent.futures.Future[Any]]] = (
            collections.deque()
        )
        self._waking = False  # whoever queues something and then finds it set is served by a `run` to come

    def add(self, start: Callable[[], asyncio.Future[Any]]) -> concurrent.futures.Future[Any]:
        """Has `start` run in the reactor; the future gets what its future gets. Any thread."""
        future = concurrent.futures.Future[Any]()
        self._queue.append((start, future))
        if not self._waking:
            self._waking = True
            try:
                self._reactor.call(self.run)
            except ClosedError as error:
                self._fail(error)  # also those of others, who rely on our wake-up
        return future

    def run(self) -> None:
        """In the reactor: starts everything that is queued."""
        self._waking = False
        for _ in range(len(self._queue)):  # nobody else takes from it while the reactor runs
            start, future = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                _pass_on(start(), future)
            except Exception as error:
                future.set_exception(error)

    def _fail(self, error: ClosedError) -> None:
        self._waking = False
        with contextlib.suppress(IndexError):  # several threads may do this at once
            while True:
                _, future = self._queue.popleft()
                if future.set_running_or_notify_cancel():
                    future.set_exception(copy.copy(error))


def _close_parts(
    client: AsyncClient, process: runtime.Runtime, submissions: _Submissions, notifier: DaemonPool
) -> None:
    """What a Client consists of, closed in order. Not in the reactor's thread."""
    notifier.close()
    shut = concurrent.futures.Future[None]()

    def shut_in_reactor() -> None:
        try:
            submissions.run()
            client._shut()
        finally:
            shut.set_result(None)

    try:
        process.reactor.call(shut_in_reactor)
        shut.result(runtime.patience_s())
    except ClosedError:
        client._shut()  # the reactor has ended: its loop runs in no thread any more
    except concurrent.futures.TimeoutError as error:
        log.warning("%r did not close in order: %s", client, error)
    finally:  # also after a second Ctrl-C
        client._give_back()
        runtime.release(process)


async def _make_async(broker: str, options: ClientOptions | None) -> AsyncClient:
    return AsyncClient(broker, options=options)


def _pass_on(inner: asyncio.Future[Any], outer: concurrent.futures.Future[Any]) -> None:
    def done(finished: asyncio.Future[Any]) -> None:
        if finished.cancelled():
            outer.set_exception(ClosedError("the call was cancelled"))
            return
        error = finished.exception()
        if error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(finished.result())

    inner.add_done_callback(done)
