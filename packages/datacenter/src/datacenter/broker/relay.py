"""A relay: the broker's proxy of one service, between its clients (a ROUTER) and its instances (a DEALER each).

What belongs to whom
- The relay's thread makes, uses and closes all its sockets; nobody else touches them. Messages move in C, without the
  GIL; the thread is in Python only when something is to be decided: an instance comes, goes or is lost, or the end.
- Everybody else says what they want (`set_instances`, `stop`) under the relay's lock, and writes to its wake-up
  descriptor, an eventfd: its own, not shared with any other relay, writable from any number of threads, never full.
- The hub's thread tells of connections, under the same lock.
No lock is held while a socket is used or a thread is waited for.

The end is in order: the loop returns; replies that have arrived are delivered; each socket's monitor is stopped while
the hub still drains it, then the socket is closed (OwnedSocket.close); then the wake-up; then the thread.

A connection that ends takes its DEALER with it and the next one starts empty: no call of an old connection is
delivered late, and its unanswered calls are told as lost and not counted against the new one. A call sent between the
end and the hub's event may still go to the old one, and is lost with it; one sent after the event never does: the loop
looks at the wake-up between taking calls and handing them over. Calls go to a connection from the handshake on, as the
hub tells. ZMQ_IMMEDIATE would do the same, but with it libzmq drops the replies that have arrived
and are not read yet when a connection ends (socket_base.cpp:hiccuped): the last of an instance that ends in order.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import zmq

from datacenter import options
from datacenter.broker import relay_answers, relay_loop, relay_loop_python  # noqa: F401 - so that making one needs no file
from datacenter.broker.relay_loop import Outcome, RelayCounts, RelayLoop
from datacenter.broker.relay_reports import InstanceStatistics, RelayOptions, RelayState, RelayStatistics
from datacenter.errors import ClosedError, DatacenterError
from datacenter.listening import bind_listener
from datacenter.sockets import (
    CloseReport,
    MonitorEvent,
    OwnedSocket,
    SocketContext,
    bundles,
    descriptor_limit,
    fork,
)
from datacenter.sockets.connections import Connections
from datacenter.sockets.ledger import Ledger

__all__ = ["InstanceStatistics", "Relay", "RelayOptions", "RelayState", "RelayStatistics"]

log = logging.getLogger("datacenter.relay")

#: how long after a connection's end its last replies may still be on their way from the I/O thread
_LAST_REPLIES_S: Final = 0.05
#: before an instance that could not be connected (no descriptor, no slot, no ZeroMQ peer) is tried again
_RETRY_S: Final = 1.0
_RETRY_MS: Final = int(_RETRY_S * 1000)


@dataclass
class _Back:
    """One connection to one instance. Used by the relay's thread."""

    endpoint: str
    owned: OwnedSocket
    slot: int
    ready: bool = False  # it has shaken hands, and gets calls
    remove_at: float = 0.0  # once it leaves


class Relay:
    """Listens when the constructor returns. Thread-safe; stop() it, or use `with`. Ends with its context at the latest.

    listen: where clients connect; port 0 takes a free one. insecure: allows addresses beyond loopback on both sides.
    Raises what OwnedSocket.bind raises, DescriptorLimitError and SocketLimitError. After a fork stop() does nothing in
    the child, everything else raises ForkedError.
    """

    def __init__(
        self,
        service: str,
        context: SocketContext,
        *,
        listen: str = "tcp://127.0.0.1:0",
        insecure: bool = False,
        options: RelayOptions | None = None,
    ) -> None:
        self.service = service
        self.options = options or RelayOptions()
        self._context = context
        self._listen = listen
        self._insecure = insecure
        self._endpoint = ""
        self._epoch = fork.current()
        self._lock = threading.Lock()
        # Under the lock:
        self._state: RelayState = "starting"
        self._wanted: frozenset[str] = frozenset()
        self._ended: dict[int, float] = {}  # generation of a connection that ended -> when its endpoint is tried again
        self._connections = Connections()
        self._wake_fd = -1
        self._loop: RelayLoop | None = None
        self._counts = RelayCounts()
        self._native = False
        self._front_generation = 0
        # Of the thread:
        self._active: dict[str, _Back] = {}
        self._leaving: list[_Back] = []
        self._retry_at: dict[str, float] = {}
        self._front: OwnedSocket | None = None
        self._ledger: Ledger | None = None
        self._begun: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name=f"datacenter-relay-{service}", daemon=True)
        self._start()

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise DatacenterError(f"The relay of {self.service} has no thread: {error}.", "Raise ulimit -u.") from error
        try:
            self._endpoint = self._begun.result()
        except Exception:
            self._thread.join()
            raise
        except BaseException:  # Ctrl-C while it waits
            self.stop()
            raise

    # --- for everybody

    @property
    def endpoint(self) -> str:
        """Where clients connect."""
        fork.check(self._epoch, f"Relay {self.service!r}")
        return self._endpoint

    @property
    def state(self) -> RelayState:
        """One of: starting, serving, stopping, ended, forked."""
        return "forked" if fork.ended(self._epoch) else self._state

    def set_instances(self, endpoints: Iterable[str]) -> None:
        """These are the service's live instances from now on. Returns at once; the last word counts.

        New ones are connected; one that is no longer named gets no more calls, and is let go of when it has answered
        those it has, or after `drain_s`; calls that are left then end as lost. Raises ClosedError after stop().
        """
        fork.check(self._epoch, f"Relay {self.service!r}")
        wanted = frozenset(endpoints)
        with self._lock:
            if self._state != "serving":
                raise ClosedError(f"Relay {self.service!r} is {self._state}.", "Ask the relay manager for a new one.")
            self._wanted = wanted
            self._wake()

    def stop(self, deadline_s: float = options.CLOSE_DEADLINE_S) -> CloseReport:
        """Ends it, in whatever state it is; says what was still open after `deadline_s`. Idempotent: every caller waits
        for the same end. Clients see the end of their connection. Nothing happens in a forked child.
        """
        began = time.monotonic()
        if fork.ended(self._epoch):
            return CloseReport((), 0.0)
        with self._lock:
            if self._state != "ended":
                self._state = "stopping"
                self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(deadline_s)
        left = (f"relay {self.service}",) if self._thread.is_alive() else ()
        return CloseReport(left, time.monotonic() - began)

    def connected(self) -> int:
        """How many instances have a connection that has shaken hands."""
        fork.check(self._epoch, f"Relay {self.service!r}")
        with self._lock:
            return self._connections.ready()

    def statistics(self) -> RelayStatistics:
        """See RelayStatistics."""
        fork.check(self._epoch, f"Relay {self.service!r}")
        with self._lock:
            counts = self._loop.counts() if self._loop is not None else self._counts
            return RelayStatistics(
                self.service,
                self._endpoint,
                self._state,
                self._connections.count(self._front_generation),
                self._connections.ready(),
                self._instances(),
                counts,
                self._native,
            )

    def _instances(self) -> tuple[InstanceStatistics, ...]:
        loop = self._loop
        if loop is None:
            return ()
        leaving = tuple(self._leaving)
        return tuple(
            InstanceStatistics(
                back.endpoint,
                loop.in_flight(back.slot),
                self._connections.ready(back.owned.generation) > 0,
                back in leaving,
            )
            for back in (*self._active.values(), *leaving)
        )

    def __enter__(self) -> Relay:
        fork.check(self._epoch, f"Relay {self.service!r}")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = f"{self._endpoint} " if self._endpoint else ""
        return f"<Relay {self.service!r} {where}{self.state}, {len(self._active)} instances>"

    def _wake(self) -> None:
        """With the lock held: the descriptor is closed under it."""
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)

    # --- in the hub's thread

    def _on_event(self, event: MonitorEvent) -> None:
        with self._lock:
            was_ready = self._connections.ready(event.generation)
            self._connections.take(event)
            if event.generation == self._front_generation:
                return
            is_ready = self._connections.ready(event.generation)
            if was_ready and not is_ready:
                self._ended[event.generation] = event.at + options.RECONNECT_MIN_MS / 1000
            elif event.name == "HANDSHAKE_FAILED_PROTOCOL":
                # libzmq does not try again after it (session_base.cpp:463): a new socket must.
                self._ended[event.generation] = event.at + _RETRY_S
            elif was_ready == is_ready:
                return
            self._wake()

    # --- in the relay's thread

    def _run(self) -> None:
        try:
            endpoint = self._open()
        except BaseException as error:
            self._close()
            self._begun.set_exception(error)
            return
        self._begun.set_result(endpoint)
        try:
            self._serve()
        except Exception:
            log.exception("the relay of %s ended", self.service)
        finally:
            self._close()

    def _open(self) -> str:
        account = f"relay {self.service}"
        descriptor_limit.require(1, account)
        self._ledger = Ledger.open()
        with fork.still(), descriptor_limit.typed(account):
            wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._ledger.register(wake_fd, "eventfd", account)
        with self._lock:
            self._wake_fd = wake_fd
        self._front = front = self._context.socket(
            zmq.ROUTER,
            owner=account,
            on_event=self._on_event,
            router_mandatory=True,
            send_high_water=self.options.client_high_water,
            max_message_bytes=bundles.largest_message(self.options.max_message_bytes),
            linger_ms=options.GOODBYE_LINGER_MS,
        )
        with self._lock:
            self._front_generation = front.generation
            self._connections.born(front.generation)
        limits, expired = self.options.loop_limits(), relay_answers.expired(self.service)
        loop = relay_loop.make(front, wake_fd, limits, expired, native=self.options.native)
        with self._lock:
            self._loop = loop
            self._native = isinstance(loop, relay_loop.NativeRelayLoop)
        endpoint = bind_listener(front, self._listen, insecure=self._insecure)
        with self._lock:
            if self._state == "starting":
                self._state = "serving"
        return endpoint

    def _serve(self) -> None:
        loop = self._loop
        assert loop is not None
        while True:
            wait_ms = self._settle(loop, time.monotonic())
            if self._state == "stopping":  # read without the lock: stop() has written the wake-up after it
                return
            outcome = loop.run(wait_ms)
            if outcome is Outcome.WOKEN:
                os.eventfd_read(self._wake_fd)
            elif outcome is Outcome.TERMINATED:
                log.debug("the relay of %s ends with its context", self.service)
                return
            elif outcome is Outcome.FAILED:
                raise DatacenterError(f"the relay of {self.service} cannot go on: {os.strerror(loop.error())}")

    def _settle(self, loop: RelayLoop, now: float) -> int:
        """Carries out what is wanted and has happened. Returns in how many ms something is due, -1 for never."""
        with self._lock:
            wanted, ended, self._ended = self._wanted, self._ended, {}
            begun = [back for back in self._active.values() if self._has_begun(back)]
        for back in begun:
            back.ready = True
            loop.ready(back.slot)
        for endpoint, back in list(self._active.items()):
            if back.owned.generation in ended:
                self._leave(loop, back, now + _LAST_REPLIES_S)
                self._retry_at[endpoint] = ended[back.owned.generation]
            elif endpoint not in wanted:
                self._leave(loop, back, now + self.options.drain_s)
        for back in self._leaving:
            if back.owned.generation in ended:
                back.remove_at = min(back.remove_at, now + _LAST_REPLIES_S)
        for back in [back for back in self._leaving if back.remove_at <= now or not loop.in_flight(back.slot)]:
            self._remove(loop, back)
        for endpoint in self._retry_at.keys() - wanted:
            del self._retry_at[endpoint]
        for endpoint in wanted - self._active.keys():
            if self._retry_at.get(endpoint, 0.0) <= now:
                self._connect(loop, endpoint)
        due = [back.remove_at for back in self._leaving] + list(self._retry_at.values())
        return max(1, int((min(due) - time.monotonic()) * 1000) + 1) if due else -1

    def _has_begun(self, back: _Back) -> bool:
        return not back.ready and self._connections.ready(back.owned.generation) > 0

    def _connect(self, loop: RelayLoop, endpoint: str) -> None:
        self._retry_at.pop(endpoint, None)
        owned: OwnedSocket | None = None
        try:
            owned = self._context.socket(
                zmq.DEALER,
                owner=f"relay {self.service} to {endpoint}",
                receive_high_water=options.RECEIVE_ALL,
                on_event=self._on_event,
                reconnect_min_ms=_RETRY_MS,  # of connections that never stood: one that did takes its socket with it
                reconnect_max_ms=_RETRY_MS,
                send_high_water=self.options.instance_high_water,
                max_message_bytes=bundles.largest_message(self.options.max_message_bytes),
            )
            with self._lock:
                self._connections.born(owned.generation)
            slot = loop.add(owned, relay_answers.lost(self.service, endpoint))
            if slot is None:
                raise DatacenterError(f"it has {self.options.max_instances} instances, as many as it takes")
            back = _Back(endpoint, owned, slot)
            try:
                owned.connect(endpoint, insecure=self._insecure, resolve=False)
            except BaseException:
                loop.remove(slot)
                raise
        except DatacenterError as error:
            log.warning("the relay of %s has no connection to %s: %s", self.service, endpoint, error)
            self._retry_at[endpoint] = time.monotonic() + _RETRY_S
            if owned is not None:
                self._close_socket(owned)
            return
        with self._lock:
            self._active[endpoint] = back

    def _leave(self, loop: RelayLoop, back: _Back, until: float) -> None:
        loop.retire(back.slot)
        back.remove_at = until
        with self._lock:
            del self._active[back.endpoint]
            self._leaving.append(back)

    def _remove(self, loop: RelayLoop, back: _Back) -> None:
        with self._lock:
            self._leaving.remove(back)
        lost = loop.remove(back.slot)
        self._close_socket(back.owned)
        if lost:
            log.info("%d calls that %s was handed by the relay of %s are lost", lost, back.endpoint, self.service)

    def _close_socket(self, owned: OwnedSocket) -> None:
        owned.close()
        with self._lock:
            self._connections.gone(owned.generation)
            self._ended.pop(owned.generation, None)

    def _close(self) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(DatacenterError):
                loop.flush()
            with self._lock:
                self._counts, self._loop = loop.counts(), None
            loop.close()
        for back in (*self._active.values(), *self._leaving):
            self._close_socket(back.owned)
        if self._front is not None:
            self._close_socket(self._front)
        with self._lock:
            self._active, self._leaving = {}, []
            self._state = "ended"
            wake_fd, self._wake_fd = self._wake_fd, -1
        if self._ledger is not None:
            if wake_fd >= 0:
                with fork.still():
                    # Forgotten first: once closed, the number may be another's.
                    self._ledger.forget(wake_fd)
                    os.close(wake_fd)
            self._ledger.close()
