"""The one place that makes a ZeroMQ context and sockets: with owners, checked limits, and an end that is bounded in
every state.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import logging
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final

import zmq

from datacenter.errors import ClosedError, DatacenterError, SocketLimitError
from datacenter.interruptions import uninterrupted
from datacenter.options import CLOSE_DEADLINE_S
from datacenter.sockets import admission, descriptor_limit, fork, peer_guard
from datacenter.sockets import hub as hubs
from datacenter.sockets.events import DEBUG_MASK, USUAL_MASK, MonitorEvent
from datacenter.sockets.hub import MonitorHub
from datacenter.sockets.ledger import Ledger
from datacenter.sockets.monitor_reader import MonitorReader
from datacenter.sockets.options import SocketOptions
from datacenter.sockets.owned import OwnedSocket
from datacenter.sockets.reports import CloseReport, ContextStatistics
from datacenter.sockets.threads import InternalLock

log = logging.getLogger("datacenter.sockets")

_generations = itertools.count(1)
_monitor_names = itertools.count(1)
_DEFAULTS: Final = SocketOptions()
_LEAST_WAIT_S: Final = 0.05  # for each thread that ends, when the deadline has passed already


class SocketContext:
    """Makes sockets; owns one zmq.Context (one I/O thread), started by the first socket. A context manager.

    `debug` also logs retries and accept failures, repeats folded, at level DEBUG of the logger `datacenter.sockets`.
    `ledger`: None for the process's own. It is written to; None also closes it at the end.
    `max_sockets` (0: from the descriptor limit) counts libzmq's sockets: a monitored one takes three.
    Thread-safe, but for the sockets themselves. In a forked child close() does nothing, and everything else raises
    ForkedError.
    """

    def __init__(
        self,
        name: str,
        *,
        options: SocketOptions = _DEFAULTS,
        ledger: Ledger | None = None,
        debug: bool = False,
        max_sockets: int = 0,
    ) -> None:
        self._epoch = fork.current()
        self.name = name
        self.options = options
        self.debug = debug
        self.inproc_names: set[str] = set()
        self._owns_ledger = ledger is None
        self._ledger = ledger or Ledger.open()  # before the zmq.Context: what libzmq opened earlier is in no ledger
        self._hub: MonitorHub = hubs.of_process()
        self._max_sockets = max_sockets
        self._lock = InternalLock()
        self._ending = threading.Lock()
        self._term_done: threading.Event | None = None
        self._zmq: zmq.Context[zmq.Socket[bytes]] | None = None
        self._attached = False
        self._made = 0
        self._owned: dict[int, weakref.ref[OwnedSocket]] = {}
        self._unclaimed: list[tuple[str, zmq.Socket[bytes]]] = []
        self._closed = False
        self._report: CloseReport | None = None
        _alive.add(self)

    # --- making

    def socket(
        self,
        kind: int,
        *,
        owner: str,
        on_event: Callable[[MonitorEvent], object] | None = None,
        options: SocketOptions | None = None,
        monitored: bool = True,
        **overrides: Any,
    ) -> OwnedSocket:
        """A socket of type `kind` (zmq.DEALER, ...) that belongs to `owner`, with the context's options or `options`,
        and `overrides` by name.

        `on_event` is called in the hub's thread and must return quickly; what it raises is logged and counted.
        Raises DescriptorLimitError, SocketLimitError, ClosedError, ForkedError; TypeError for an unknown option.
        """
        fork.check(self._epoch, f"Context {self.name!r}")
        settings = (options or self.options).replace(**overrides)
        with self._lock:
            if self._closed:
                raise ClosedError(f"Context {self.name!r} is closed.", "Make a new one.")
            context = self._started(owner, monitored)
            generation = next(_generations)
            account = f"{owner} #{generation}"
            raw: zmq.Socket[bytes] | None = None
            try:
                with self._ledger.owner(account), self._at_hand(owner, eventfds=3 if monitored else 1):
                    raw = self._open(context, kind, owner)
                    settings.apply(raw)
                    reader = self._watch(context, raw, owner, generation, account, on_event) if monitored else None
            except BaseException:
                if raw is not None:
                    raw.close(0)
                self._ledger.release_owner(account)
                raise
            owned = OwnedSocket(
                self,
                raw,
                owner=owner,
                generation=generation,
                ledger=self._ledger,
                account=account,
                hub=self._hub,
                reader=reader,
            )
            self._owned[generation] = weakref.ref(owned)
            self._made += 1
            return owned

    def _started(self, owner: str, monitored: bool) -> zmq.Context[zmq.Socket[bytes]]:
        """The running zmq.Context, once there is room for it, the hub and the socket: all is asked for before anything
        is begun.
        """
        cost = descriptor_limit.SOCKET_COST + (descriptor_limit.MONITOR_COST if monitored else 0)
        if self._zmq is None:
            cost += descriptor_limit.CONTEXT_COST
        if monitored and not self._attached:
            cost += descriptor_limit.HUB_COST
        descriptor_limit.require(cost, f"A socket for {owner!r}")
        if self._zmq is None:
            self._zmq = self._start()
        if monitored and not self._attached:
            with descriptor_limit.typed("the monitor hub"):
                self._hub.attach()
            self._attached = True
        return self._zmq

    @contextlib.contextmanager
    def _at_hand(self, owner: str, *, eventfds: int, epolls: int = 0) -> Iterator[None]:
        """The descriptors that libzmq is about to ask for, opened first: it aborts where it gets none half-way
        (epoll.cpp:38; ip.cpp:539 for ENOMEM), and no check beforehand could be in time. DescriptorLimitError.
        """
        with contextlib.ExitStack() as stack:
            with descriptor_limit.typed(repr(owner)):
                stack.enter_context(self._ledger.standby(eventfds=eventfds, epolls=epolls))
            yield

    def _start(self) -> zmq.Context[zmq.Socket[bytes]]:
        # Where descriptors cannot be put at hand libzmq aborts with two to four left (epoll.cpp:38): no peer takes any.
        admission.of_process().make_room()
        try:
            name = f"context {self.name}"
            # Its own mailbox, those of the reaper and the I/O thread with an epoll each, and that of the first socket.
            with self._ledger.owner(name), self._at_hand(name, eventfds=4, epolls=2):
                try:
                    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
                except zmq.ZMQError as error:
                    raise self._limit_error(error, name) from error
                context.set(zmq.BLOCKY, 0)
                self._max_sockets = self._max_sockets or descriptor_limit.max_sockets()
                context.set(zmq.MAX_SOCKETS, self._max_sockets)  # the table is made at the first socket (ctx.cpp:386)
                # The first socket starts the threads and opens their descriptors: here, so that they are the context's
                # and not its owner's.
                try:
                    self._open(context, zmq.PAIR, name).close(0)
                except BaseException:
                    context.term()  # nothing was started: it returns at once
                    raise
            return context
        finally:
            admission.of_process().check()

    def _open(self, context: zmq.Context[zmq.Socket[bytes]], kind: int, owner: str) -> zmq.Socket[bytes]:
        if kind == zmq.ROUTER and peer_guard.of_process().reason:
            peer_guard.seed()
        try:
            return context.socket(kind)
        except zmq.ZMQError as error:
            raise self._limit_error(error, owner) from error

    def _limit_error(self, error: zmq.ZMQError, owner: str) -> DatacenterError:
        """Which limit it was: libzmq says EMFILE, "Too many open files", for both (ctx.cpp:475)."""
        if error.errno not in descriptor_limit.SHORTAGES:
            return DatacenterError(f"No socket for {owner!r}: {error}.")
        if error.errno != errno.EMFILE or descriptor_limit.spare() == 0:
            return descriptor_limit.refused(error.errno, repr(owner))
        return SocketLimitError(
            f"Context {self.name!r} has no room for {owner!r}: all {self._max_sockets} sockets of libzmq are in use.",
            f"{len(self._owned)} owned sockets are open, a monitored one takes three: close some, or start with "
            "a higher descriptor limit.",
        )

    def _watch(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        raw: zmq.Socket[bytes],
        owner: str,
        generation: int,
        account: str,
        on_event: Callable[[MonitorEvent], object] | None,
    ) -> MonitorReader:
        """Attach a monitor: the reader connects first, without a high-water mark, so that there is no event without a
        reader to take it.
        """
        name, socket = self._unclaimed.pop() if self._unclaimed else self._new_reader(context, owner)
        try:
            raw.monitor(name, DEBUG_MASK if self.debug else USUAL_MASK)
        except zmq.ZMQError as error:
            # The reader waits for its name to be bound, and libzmq cannot close it before that (it would abort at the
            # end, ctx.cpp:142). So it is kept for the next socket.
            self._unclaimed.append((name, socket))
            raise self._limit_error(error, owner) from error
        reader = MonitorReader(
            raw,
            socket,
            owner=owner,
            generation=generation,
            ledger=self._ledger,
            account=account,
            on_event=on_event,
            debug=self.debug,
        )
        try:
            self._hub.add(reader)
        except BaseException:
            self._hub.release(reader)
            raise
        return reader

    def _new_reader(self, context: zmq.Context[zmq.Socket[bytes]], owner: str) -> tuple[str, zmq.Socket[bytes]]:
        socket = self._open(context, zmq.PAIR, owner)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 0)  # before the connect: the pipe's mark is fixed there
        # Unique for ever: libzmq frees a name only when its reaper comes round, and pyzmq's own is made of a number
        # that is reused.
        name = f"inproc://datacenter.monitor.{next(_monitor_names)}"
        socket.connect(name)
        return name, socket

    # --- looking at it

    def statistics(self) -> ContextStatistics:
        """See ContextStatistics. Raises ForkedError."""
        fork.check(self._epoch, f"Context {self.name!r}")
        return ContextStatistics(
            self.name, len(self._owned), self._made, self._max_sockets, descriptor_limit.spare(), self._hub.statistics()
        )

    def __repr__(self) -> str:
        state = "forked" if fork.ended(self._epoch) else "closed" if self._closed else "open"
        return f"<SocketContext {self.name!r} {state}, {len(self._owned)} sockets>"

    # --- the end

    def closed_one(self, generation: int, bound: list[str]) -> None:
        """A socket of this context was closed (called by OwnedSocket)."""
        self._owned.pop(generation, None)
        self.inproc_names.difference_update(bound)

    def close(self, deadline_s: float = CLOSE_DEADLINE_S, *, everything: bool = True) -> CloseReport:
        """Close all sockets, newest first, and end the context. Returns within about `deadline_s` in every state, and
        says what is left.

        Idempotent; a second call returns the same report, and goes on if the first was interrupted. No thread may be
        inside a call of one of the sockets; without `everything`, those of other threads that live are not touched:
        term() wakes those threads with ETERM, and they close their own. What does not end in time is left alone for
        ever, rather than waited for. In a forked child it does nothing.
        """
        began = time.monotonic()
        if fork.ended(self._epoch):
            return CloseReport((), 0.0)
        if not self._ending.acquire(timeout=deadline_s):
            return CloseReport((f"context {self.name}: another thread is closing it",), time.monotonic() - began)
        try:
            if self._report is None:
                left = self._end(began + deadline_s, everything)
                self._report = CloseReport(left, time.monotonic() - began)
            return self._report
        finally:
            self._ending.release()

    def _end(self, deadline: float, everything: bool) -> tuple[str, ...]:
        with self._lock:
            self._closed = True
            context = self._zmq
        for owned in self._open_sockets():
            if everything or owned.home is threading.current_thread() or not owned.home.is_alive():
                owned.close()
        left: tuple[str, ...] = ()
        if context is not None:
            self._release_unclaimed(context, deadline)
            left = self._terminate(context, deadline)
        self._zmq = None
        _alive.discard(self)
        if self._attached and not self._hub.detach(max(_LEAST_WAIT_S, deadline - time.monotonic())):
            left += ("monitor hub: a callback has not returned",)
        self._ledger.release_owner(f"context {self.name}")
        if self._owns_ledger and not left:
            self._ledger.close()
        return left

    def _open_sockets(self) -> list[OwnedSocket]:
        """Newest first."""
        # A copy in one step: other threads close sockets meanwhile.
        found = sorted(self._owned.items(), reverse=True)
        return [owned for _, reference in found if (owned := reference()) is not None]

    def _release_unclaimed(self, context: zmq.Context[zmq.Socket[bytes]], deadline: float) -> None:
        """Bind the name that a left-over reader waits for, so that both can be closed. There is room again: all others
        are closed.
        """
        while self._unclaimed:
            name, reader = self._unclaimed[-1]
            try:
                with self._ledger.standby(eventfds=1):
                    other = context.socket(zmq.PAIR)
            except (zmq.ZMQError, OSError):
                # Freed slots come back when the reaper has been round.
                if time.monotonic() > deadline:
                    break
                time.sleep(0.001)
                continue
            other.bind(name)
            other.close(0)
            reader.close(0)
            self._unclaimed.pop()

    def _terminate(self, context: zmq.Context[zmq.Socket[bytes]], deadline: float) -> tuple[str, ...]:
        """zmq_ctx_term in another thread, since it waits for every socket and cannot be told a deadline."""
        left = tuple(owned.owner for owned in self._open_sockets())
        if self._unclaimed:
            # term() would abort; a context that is never ended does no harm.
            fork.keep_for_ever(context)
            return (*left, f"context {self.name}: no room to close a monitor's reader")
        done = self._begin_term(context)
        if done.wait(max(_LEAST_WAIT_S, deadline - time.monotonic())):
            return ()
        # Immortal: the finaliser would wait in term() as well, without end. (The helper's frame holds it, too.)
        fork.keep_for_ever(context)
        for owned in self._open_sockets():
            owned.abandon()
        return (*(owned.owner for owned in self._open_sockets()), f"context {self.name}")

    def _begin_term(self, context: zmq.Context[zmq.Socket[bytes]]) -> threading.Event:
        """Has zmq_ctx_term called, once, in a thread that may wait; the event tells when it has returned."""
        if self._term_done is not None:
            return self._term_done
        done = self._term_done = threading.Event()

        def term() -> None:
            try:
                context.term()
            finally:
                done.set()

        try:
            threading.Thread(target=term, name="datacenter-term", daemon=True).start()
        except RuntimeError:
            # From Python 3.12 the exit hook can start no thread. The hub's thread is there, and its last work may wait.
            if self._attached:
                self._hub.adopt(term)
            else:
                term()  # without a hub there is no monitor: a context of plain sockets, which are closed
        return done

    def __enter__(self) -> SocketContext:
        fork.check(self._epoch, f"Context {self.name!r}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or fork.ended(self._epoch):
            return
        hub, attached, context = self._hub, self._attached, self._zmq
        ledger = self._ledger if self._owns_ledger else None

        def end() -> None:
            hub.detach(0.0)
            threading.Thread(target=_end_quietly, args=(context, ledger), name="datacenter-term", daemon=True).start()

        said = f"{self!r} was collected unclosed; close() it, or use `with`"
        try:
            warnings.warn(said, ResourceWarning, source=self, stacklevel=1)
        finally:
            # A finaliser must not wait, nor take a lock: the hub's thread ends it, after its sockets. Without a hub,
            # pyzmq's own finaliser does; it need not wait, since all sockets were collected before.
            if attached:
                hub.adopt(end)


def _end_quietly(context: zmq.Context[zmq.Socket[bytes]] | None, ledger: Ledger | None) -> None:
    if context is not None:
        context.term()
    if ledger is not None:
        ledger.close()


_alive: weakref.WeakSet[SocketContext] = weakref.WeakSet()


def _close_at_exit() -> None:
    """Close what was forgotten, before libzmq's globals are torn down under its threads; in a second for all of it.

    Sockets of threads that still run are not touched: term() wakes those threads with ETERM, and they close their own.
    """
    fork.settle()
    began = time.monotonic()
    found = [repr(context) for context in _alive]
    left: tuple[str, ...] = ()
    for context in list(_alive):
        try:
            wait_s = max(_LEAST_WAIT_S, began + CLOSE_DEADLINE_S - time.monotonic())
            left += context.close(wait_s, everything=False).still_open
        except Exception:
            log.exception("%r could not be closed at exit", context)
    if found:
        tail = f"; left open: {', '.join(left)}" if left else ""
        log.info("closed at exit in %.0f ms: %s%s", (time.monotonic() - began) * 1000, ", ".join(found), tail)


def _forget_in_child() -> None:
    """pyzmq's finalisers would warn of the parent's sockets, and walk through them: they must never run."""
    for context in list(_alive):
        for owned in context._open_sockets():
            fork.keep_for_ever(owned)
        fork.keep_for_ever(context)
    _alive.clear()


atexit.register(uninterrupted, _close_at_exit)
fork.in_child(_forget_in_child)
