"""The monitor hub: one thread and one epoll that drain every socket monitor of the process, from its birth to its
death.

What libzmq forces (4.3.5; the essay is in sockets/__init__.py):

- An event is sent to the reader with a *blocking* send, by the I/O thread, with the socket's monitor mutex held
  (socket_base.cpp:1950). A reader that is full stops the I/O thread, and with it every socket of the context. So: a
  reader has no high-water mark, it is connected before the monitor starts, and somebody always reads it: this thread.
- Python's pyzmq holds the GIL in monitor() and disable_monitor(). With a full reader they would freeze the interpreter,
  and this thread too. The unbounded reader is what makes them safe; this thread is what keeps it small.
- ZMQ_FD tells that something happened, not that there is something to read; so a reader is drained to EAGAIN, and
  EVENTS is asked again.
- A PAIR may be used by one thread at a time. A reader's `lock` is that fence: the hub drains under it, close() takes
  the reader over under it. Callbacks run outside every lock, so they may close their own socket.

Lock order: hub lock, then nothing; reader lock, then hub lock. No lock is held in a callback.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import zmq

from datacenter.errors import DatacenterError
from datacenter.options import option
from datacenter.sockets import admission, fork
from datacenter.sockets.events import Folder, MonitorEvent
from datacenter.sockets.ledger import Ledger
from datacenter.sockets.monitor_reader import MonitorReader
from datacenter.sockets.threads import InternalLock, internal, start

log = logging.getLogger("datacenter.sockets")

BATCH: Final = option(
    "monitor", "hub_batch", 500, "events", "A",
    "Read from one monitor before the others get their turn, and before close() can have it.",
)  # fmt: skip
LAG_WARN_EVENTS: Final = option(
    "monitor", "lag_warn_events", 1000, "events", "A",
    "Found waiting in one monitor at a wake-up: half of what would have blocked libzmq with an ordinary reader. "
    "Logged at most every 10 s.",
)  # fmt: skip
LAG_WARN_S: Final = option(
    "monitor", "lag_warn_s", 0.25, "s", "A",
    "A turn of the hub that takes longer is logged, at most every 10 s: a callback is slow, or something holds the "
    "GIL.",
)  # fmt: skip
_NAME: Final = "monitor hub"
_WARN_EVERY_S: Final = 10.0
_IDLE_S: Final = 5.0  # only for objects collected unclosed whose finaliser could not wake the hub


@dataclass(frozen=True)
class HubStatistics:
    """Counts since the hub was made, except `monitors` and `running`.

    `longest_queue` (events) is the most found waiting in one monitor; `longest_turn_s` the longest time between two
    looks at all monitors while there was work: no event waited longer for the hub itself.
    """

    running: bool
    monitors: int
    events: int
    turns: int
    callback_errors: int
    longest_queue: int
    longest_turn_s: float


class MonitorHub:
    """Drains the monitors given to it. Use `of_process()`: one hub serves all contexts of a process.

    Starts with the first `attach()`, ends with the last `detach()`, and can start again. All methods may be called from
    any thread, also from a callback. Dead in a forked child, where `of_process()` makes a new one.
    """

    def __init__(self) -> None:
        self._epoch = fork.current()
        self._lock = InternalLock()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._epoll: select.epoll | None = None
        self._wake_fd = -1
        self._readers: dict[int, MonitorReader] = {}
        self._orphans: collections.deque[Callable[[], None]] = collections.deque()
        self._ledger: Ledger | None = None
        self._folder = Folder()
        self._events = self._turns = self._callback_errors = self._longest_queue = 0
        self._longest_turn_s = 0.0
        self._warned_at = float("-inf")
        self._accepted = False  # in this turn

    # --- life

    def attach(self) -> None:
        """One more context uses the hub. Opens two descriptors if it is the first; OSError if they cannot be had."""
        with self._lock:
            self._users += 1
            if self._thread is not None:
                return
            try:
                self._start()
            except BaseException:
                self._users -= 1
                self._shut()
                raise

    def _start(self) -> None:
        self._ledger = ledger = Ledger.open()
        with fork.still():
            self._epoll = select.epoll()
            ledger.register(self._epoll.fileno(), "epoll", _NAME)
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            ledger.register(self._wake_fd, "eventfd", _NAME)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        thread = threading.Thread(target=self._run, name="datacenter-hub", daemon=True)
        start(thread, "the monitor hub")
        self._thread = thread

    def detach(self, deadline_s: float) -> bool:
        """One context fewer. With the last, the thread ends; True if it did within `deadline_s` (or others still use
        the hub).
        """
        with self._lock:
            self._users -= 1
            thread = self._thread
            if self._users > 0 or thread is None:
                return True
            self._wake()
        if thread is threading.current_thread():
            return True  # a callback closes its context: the loop ends when the callback returns
        thread.join(max(0.0, deadline_s))
        return not thread.is_alive()

    def _wake(self) -> None:
        with self._lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def _shut(self) -> None:
        """Close the hub's own descriptors, with the lock held."""
        ledger, epoll, wake_fd = self._ledger, self._epoll, self._wake_fd
        self._ledger, self._epoll, self._wake_fd, self._thread = None, None, -1, None
        if ledger is None:
            return
        # Forgotten first: once closed, a number may be another's, registered by another thread.
        with fork.still():
            if epoll is not None:
                ledger.forget(epoll.fileno())
                epoll.close()
            if wake_fd >= 0:
                ledger.forget(wake_fd)
                os.close(wake_fd)
        ledger.close()

    # --- readers

    def add(self, reader: MonitorReader) -> None:
        """Drain `reader` from now on, beginning with what it has: a new descriptor that is readable wakes epoll.
        OSError if it cannot.
        """
        with self._lock:
            assert self._epoll is not None, "attach() comes first"
            self._epoll.register(reader.fd, select.EPOLLIN)
            self._readers[reader.fd] = reader

    def release(self, reader: MonitorReader) -> None:
        """Stop a monitor and close its reader, in the one safe order. Idempotent; bounded, since the reader can never
        be full.

        No callback begins after this has returned in the thread that owns the socket; one may still be running in the
        hub's.
        """
        with reader.lock:
            if reader.closed:
                return
            reader.closed = True
            # 1. No more events. The GIL is held inside, but the reader has no high-water mark: this cannot block.
            with contextlib.suppress(zmq.ZMQError):  # ETERM: the context was terminated, libzmq has stopped it itself
                reader.monitored.disable_monitor()
            # 2. What is left names descriptors that the ledger should know. Bounded; the rest goes with the reader.
            with contextlib.suppress(zmq.ZMQError, DatacenterError):
                for event in reader.drain(BATCH)[0]:
                    reader.take(event)
            # 3. Out of epoll before the number can be reused, then closed.
            with self._lock:
                if self._readers.get(reader.fd) is reader:
                    del self._readers[reader.fd]
                    if self._epoll is not None:
                        try:
                            self._epoll.unregister(reader.fd)
                        except OSError:
                            log.warning(
                                "descriptor %d of the monitor of %s was closed by somebody else",
                                reader.fd,
                                reader.owner,
                            )
            reader.socket.close(0)

    def adopt(self, close: Callable[[], None]) -> None:
        """Have the hub's thread close what was collected unclosed: a finaliser must take no lock."""
        self._orphans.append(close)
        if self._lock.acquire(blocking=False):
            try:
                self._wake()
            finally:
                self._lock.release()
        # else: the hub looks by itself within _IDLE_S

    # --- the thread

    def _run(self) -> None:
        with internal():
            self._drain_all()

    def _drain_all(self) -> None:
        epoll = self._epoll
        assert epoll is not None
        unfinished: list[MonitorReader] = []
        while True:
            polled = epoll.poll(self._timeout_s(bool(unfinished)))
            began = time.monotonic()
            with self._lock:
                if self._users == 0:
                    self._shut()
                    break
                ready = [self._readers[fd] for fd, _ in polled if fd in self._readers]
                if any(fd == self._wake_fd for fd, _ in polled):
                    os.eventfd_read(self._wake_fd)
            # By identity: a number may have passed to another reader, and draining one twice does no harm.
            turn = {id(reader): reader for reader in (*unfinished, *ready)}
            unfinished = [reader for reader in turn.values() if self._serve(reader)]
            if fork.ended(self._epoch):
                return
            admission.of_process().check(accepted=self._accepted)
            self._accepted = False
            self._run_orphans()
            self._tell(self._folder.due(time.monotonic()))
            self._note_turn(time.monotonic() - began)
        self._run_orphans()
        self._tell(self._folder.flush(time.monotonic()))

    def _timeout_s(self, busy: bool) -> float:
        if busy or self._orphans:
            return 0.0
        due = self._folder.next_due()
        waits = [_IDLE_S, admission.of_process().wait_s(), None if due is None else max(0.0, due - time.monotonic())]
        return min(wait for wait in waits if wait is not None)

    def _serve(self, reader: MonitorReader) -> bool:
        """Drain a batch and deliver it. True if more may wait."""
        if fork.ended(self._epoch):  # a callback forked, and this is its child, where a receive never returns
            return False
        with reader.lock:
            if reader.closed:
                return False
            try:
                events, more = reader.drain(BATCH)
            except (zmq.ZMQError, DatacenterError) as error:
                # ETERM: the context was terminated from outside. The reader must go, or term() waits for it and epoll
                # spins on it.
                log.debug("the monitor of %s ended: %s", reader.owner, error)
                self.release(reader)
                return False
        reader.backlog += len(events)
        if reader.backlog > self._longest_queue:
            self._longest_queue = reader.backlog
        if reader.backlog >= LAG_WARN_EVENTS and not more:
            self._warn(
                f"{reader.backlog} events waited in the monitor of {reader.owner}: a flood, or a process held up"
            )
        if not more:
            reader.backlog = 0
        for event in events:
            self._deliver(reader, event)
            if fork.ended(self._epoch):
                return False
        return more

    def _deliver(self, reader: MonitorReader, event: MonitorEvent) -> None:
        self._events += 1
        reader.take(event)
        self._accepted = self._accepted or event.name == "ACCEPTED"
        if reader.debug:
            self._tell(self._folder.add(event))
        if reader.on_event is None or reader.closed:
            return
        try:
            reader.on_event(event)
        except BaseException:  # also SystemExit: nobody else would drain the monitors
            if fork.ended(self._epoch):
                raise  # ends the thread, and with it the child that the callback forked
            self._callback_errors += 1
            log.exception("the callback of %s raised at %s; the hub goes on", reader.owner, event.name)

    def _run_orphans(self) -> None:
        for _ in range(len(self._orphans)):
            self._run_orphan(self._orphans.popleft())

    @staticmethod
    def _run_orphan(close: Callable[[], None]) -> None:
        try:
            close()
        except Exception:
            log.exception("an object that was collected unclosed could not be closed")

    def _note_turn(self, seconds: float) -> None:
        self._turns += 1
        self._longest_turn_s = max(self._longest_turn_s, seconds)
        if seconds >= LAG_WARN_S:
            self._warn(
                f"a turn of the monitor hub took {seconds:.2f} s: a callback is slow, or something holds the GIL"
            )

    def _warn(self, message: str) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            log.warning("%s", message)

    @staticmethod
    def _tell(lines: list[str]) -> None:
        for line in lines:
            log.debug("%s", line)

    # --- looking at it

    def statistics(self) -> HubStatistics:
        """Counts; see HubStatistics."""
        with self._lock:
            return HubStatistics(
                self._thread is not None,
                len(self._readers),
                self._events,
                self._turns,
                self._callback_errors,
                self._longest_queue,
                self._longest_turn_s,
            )

    def __repr__(self) -> str:
        state = "draining" if self._thread else "idle"
        return f"<MonitorHub {state}, {len(self._readers)} monitors, {self._events} events>"


_of_process = MonitorHub()


def of_process() -> MonitorHub:
    """The hub of this process; in a forked child a new one."""
    return _of_process


def _reset_in_child() -> None:
    global _of_process
    # The parent's epoll is shared: closing our copy by its finaliser could hit a number that the ledger has closed and
    # a new socket uses.
    fork.keep_for_ever(_of_process)
    _of_process = MonitorHub()


fork.in_child(_reset_in_child)
