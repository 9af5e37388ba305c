"""What becomes of a call that reaches a server: refused, or checked, run, and answered.

Queues and their policies: at most `max_in_flight` calls run or wait at once, beyond it a call is refused unexecuted
(BusyError). A reply that finds no room (a client that does not read) waits in the outbox, at most
`max_outbox_per_client` of one client and `max_outbox` in all; beyond it that reply is dropped, counted and logged, and
its call ends by its deadline.

Runs in the thread of the serving loop; methods that are not `async` run in a pool of threads.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

from datacenter import options, wire
from datacenter.checks import check, seconds, whole
from datacenter.errors import (
    BadResultError,
    BusyError,
    CallError,
    DatacenterError,
    DeadlineError,
    LostError,
    MovedError,
    NoSuchMethodError,
    ProtocolError,
    RemoteError,
    TooLargeError,
)
from datacenter.methods import Method
from datacenter.outbox import Outbox
from datacenter.service import Service
from datacenter.sockets import fork
from datacenter.sockets.loop import LoopSocket
from datacenter.sockets.options import SocketOptions
from datacenter.threads import DaemonPool

log = logging.getLogger("datacenter.service")
MAX_ERROR_TEXT: Final = 4096
MAX_THREADS: Final = 10_000
MAX_BYTES: Final = 2**40


@dataclass(frozen=True)
class ServiceOptions:
    """Named limits of a serving process. Counts, seconds, bytes. Raises BadOptionError for a value that cannot work."""

    max_in_flight: int = options.MAX_RUNNING
    max_outbox: int = options.MAX_OUTBOX
    max_outbox_per_client: int = options.MAX_OUTBOX_PER_CLIENT
    busy_outbox_bytes: int = options.BUSY_OUTBOX_BYTES
    threads: int = options.THREADS
    drain_s: float = options.DRAIN_S
    max_message_bytes: int = SocketOptions().max_message_bytes

    def __post_init__(self) -> None:
        check(
            self,
            max_in_flight=whole(1),
            max_outbox=whole(1),
            max_outbox_per_client=whole(1),
            busy_outbox_bytes=whole(1, MAX_BYTES),
            threads=whole(1, MAX_THREADS),
            drain_s=seconds(),
            max_message_bytes=whole(1),
        )


class Dispatcher:
    """Runs the calls of one server. `in_flight`: how many run or wait for a thread; `idle` is set while none does.

    draining: the names of services that end, as their server says it: their new calls are told to go elsewhere.
    lease_left_s(name): how long a service's instance is certainly registered; asked for those that are `leased`.
    tell(): the answer to who asks for statistics.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        options: ServiceOptions,
        draining: Set[str],
        lease_left_s: Callable[[str], float],
        tell: Callable[[], Coroutine[Any, Any, dict[str, Any]]],
    ) -> None:
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._services = services
        self._options = options
        self._max_bytes = options.max_message_bytes
        self._draining = draining
        self._lease_left_s = lease_left_s
        self._leased = {service.name for service in services.values() if service.leased}
        self._methods = {
            (service.name, method.name): method for service in services.values() for method in service.methods.values()
        }
        told = Method(tell, "statistics", idempotent=True)
        self._methods.update({(name, wire.STATISTICS): told for name in services})
        self._tasks: dict[int, asyncio.Task[None]] = {}  # strong references: a loop keeps only weak ones
        self._next_task = 0
        self._closed = False
        self._counts = {"calls": 0, "errors": 0, "refused": 0, "malformed": 0}

    def start(self, stream: LoopSocket, endpoint: str) -> None:
        """Answers on `stream` from now on, whose callbacks are this object's, and which it closes. Once only."""
        self._stream = stream
        self._loop = stream.loop
        self._endpoint = endpoint
        self._outbox = Outbox(
            stream,
            self._loop,
            max_per_client=self._options.max_outbox_per_client,
            max_all=self._options.max_outbox,
            busy_bytes=self._options.busy_outbox_bytes,
        )
        self._threads = DaemonPool(self._options.threads, "datacenter-method")
        self._epoch = fork.current()

    async def cancel(self) -> None:
        """Answers what still runs with LostError. Bounded: a method that does not take it is left to itself."""
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=options.CLOSE_DEADLINE_S / 4)

    def close(self) -> None:
        """Runs and answers nothing any more. Idempotent; bounded."""
        self._closed = True
        self._outbox.close()
        self._stream.close()
        self._threads.close()

    def statistics(self) -> dict[str, int]:
        """Counts since the start, and what is open now."""
        return {
            **self._counts,
            "in_flight": self.in_flight,
            "outbox": self._outbox.waiting,
            "dropped_replies": self._outbox.dropped,
        }

    # --- a call's way

    def on_malformed(self, _routing_id: bytes) -> None:
        self._counts["malformed"] += 1

    def on_message(self, routing_id: bytes, frame: bytes) -> None:
        try:
            call = wire.decode_call(frame)
        except ProtocolError:
            self._counts["malformed"] += 1
            return
        self._counts["calls"] += call.method != wire.STATISTICS
        if len(frame) > self._max_bytes:  # where bundles must pass, so do calls of that size (bundles.largest_message)
            text = (
                f"the call of {call.service}.{call.method} has {len(frame):,} bytes; the limit is {self._max_bytes:,}"
            )
            self._refuse(routing_id, call.id, TooLargeError(text, "It was not executed; send less at once."))
            return
        if call.service in self._draining:
            self._refuse(
                routing_id, call.id, MovedError(f"{call.service} ends at {self._endpoint}", "Try another one.")
            )
            return
        if call.service in self._leased and not self._lease_left_s(call.service):
            self._counts["refused"] += 1
            text = f"{call.service} at {self._endpoint} is not certain that it is registered"
            self._refuse(routing_id, call.id, MovedError(text, "Try another one, or later."))
            return
        method = self._methods.get((call.service, call.method))
        if method is None:
            self._refuse(routing_id, call.id, self._no_such_method(call))
            return
        if self.in_flight >= self._options.max_in_flight:
            self._counts["refused"] += 1
            self._refuse(
                routing_id, call.id, BusyError(f"{call.service} has {self.in_flight} calls in flight", "Try later.")
            )
            return
        if self._outbox.waiting and self._outbox.full(routing_id):
            self._counts["refused"] += 1
            text = f"too many results of {call.service} wait for this client"
            self._refuse(routing_id, call.id, BusyError(text, "Read them, or have fewer large calls in flight."))
            return
        try:
            arguments = method.arguments(call.args, call.keywords)
        except DatacenterError as error:
            self._refuse(routing_id, call.id, error)
            return
        self.in_flight += 1
        self.idle.clear()
        run = self._run_async if method.is_async else self._run_sync
        self._next_task += 1
        work = run(self._next_task, routing_id, call, method, arguments)
        _start_task(self._loop, self._tasks, self._next_task, work)

    async def _run_async(
        self, task: int, routing_id: bytes, call: wire.Call, method: Method, arguments: tuple[Any, ...]
    ) -> None:
        try:
            result = await method.function(*arguments)
            if not self._epoch[0]:
                _leave_child(self._tasks.get(task))
                return
        except BaseException as error:
            if not self._epoch[0]:
                _leave_child(self._tasks.get(task), error)
                raise
            self._failed(routing_id, call.id, method, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise  # asked for by code in the main thread: it ends the process
        else:
            self._succeeded(routing_id, call, method, result)
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
                self._succeeded(routing_id, call, method, outcome)
        finally:
            self._tasks.pop(task, None)

    def _succeeded(self, routing_id: bytes, call: wire.Call, method: Method, result: Any) -> None:
        number = call.id
        if call.service in self._leased and not self._lease_left_s(call.service):
            text = f"the lease of {call.service} ended while {method.name} ran"
            self._failed(routing_id, number, method, _LeaseEndedError(text, "It was executed; see what it did."))
            return
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
        if len(frame) > self._options.max_message_bytes:
            self._counts["errors"] += 1
            most = self._options.max_message_bytes
            text = f"the result of {method.name} has {len(frame):,} bytes; the limit is {most:,}"
            frame = _failure(number, TooLargeError(text, "It was executed; return less at once."))
        self._finish(routing_id, frame)

    def _failed(self, routing_id: bytes, number: int, method: Method, error: BaseException) -> None:
        self._counts["errors"] += 1
        if isinstance(error, (_NotBegunError, _LeaseEndedError)):
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
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()
        self._outbox.send(routing_id, frame)

    def _refuse(self, routing_id: bytes, number: int, error: DatacenterError) -> None:
        self._outbox.send(routing_id, _failure(number, error))

    def on_refused(self, routing_id: bytes, frame: bytes, _token: object, gone: bool) -> None:
        if not gone and not self._closed:
            self._outbox.keep(routing_id, frame)

    def _no_such_method(self, call: wire.Call) -> CallError:
        service = self._services.get(call.service)
        if service is None:  # the port has passed to us from a process that served it
            return MovedError(f"{self._endpoint} does not serve {call.service!r}", "Resolve the service again.")
        names = ", ".join(sorted(service.methods))
        return NoSuchMethodError(f"{call.service} has no method {call.method!r}", f"It has: {names or 'none'}.")


class _NotBegunError(DeadlineError):
    """The call's deadline passed while it waited for a thread."""


class _LeaseEndedError(LostError):
    """The service is `leased`, and its lease ended before the answer."""


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


_forking: asyncio.Task[Any] | None = None  # the task that forks, and in the child the one that has forked it


def _note_task() -> None:
    global _forking
    try:
        _forking = asyncio.current_task()
    except RuntimeError:  # in no loop
        _forking = None


def _forget_task() -> None:
    global _forking
    _forking = None


os.register_at_fork(before=_note_task, after_in_parent=_forget_task)


def _leave_child(task: asyncio.Task[None] | None, error: BaseException | None = None) -> None:
    """In a child. One that this task has forked ends with its method, as it has nobody to answer, and the loop is its
    parent's. Its exit status is what a program's is that ends so. Another's goes on. None: a task that has never waited
    (`_start_task`), and so is the one that runs.
    """
    if task is not None and task is not _forking:
        return
    code = error.code if isinstance(error, SystemExit) else None if error is None else 1
    status = code if isinstance(code, int) else 0 if code is None else 1
    try:
        if isinstance(error, SystemExit) and code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
        elif error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status & 0xFF)


def _text_of(error: BaseException) -> str:
    """What an exception says, as text that can be sent, whatever it is."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be had)"
    return text[:MAX_ERROR_TEXT].encode("utf-8", "replace").decode()


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
