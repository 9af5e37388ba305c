"""Admission: whether this process's listeners accept connections. They stop before descriptors run out.

What libzmq forces (4.3.5): at EMFILE its TCP listener tries accept for ever, 125 000 times a second, with a whole core
(tcp_listener.cpp:56), its IPC listener aborts (ipc_listener.cpp: EMFILE is not among the errors it knows), and so does
whatever else needs a descriptor at that moment (descriptor_limit.py). Peers alone can bring a process there.

So peers may take all descriptors but a reserve, and then nobody is accepted until there is room again:

- What is needed to find a listener there is opened before it is bound; else it is not bound (DescriptorLimitError).
- While listeners accept, the reserve is really held: `accept_reserve` descriptors that are open and do nothing. The I/O
  thread can accept hundreds of connections before this process runs a line of Python, and no check could be in time.
- When hardly any other is left the listeners are switched off in libzmq's epoll (epoll_entry.py): from any thread, at
  once, without giving the port up and without a call that needs a descriptor. Then the reserve is let go of: it is now
  what the process itself can use, to answer, to make a relay, to close. Whoever asks descriptor_limit.require() for
  descriptors gets the reserve in the same way: the process's own needs come before new peers.
- Open connections are served as ever. New ones wait in the kernel's queue (`backlog`), beyond which the kernel drops
  them; they cost nothing, however many try.
- With room for the reserve and a few connections more, the reserve is taken again and the listeners switched on: tried
  after a pause that doubles up to `accept_retry_max_s`, so that a flood that goes on costs one short burst each time.

The hub's thread looks: at every batch of events with an ACCEPTED, and `accept_check_s` apart. ACCEPT_FAILED is not
asked for: it would flood the hub. Lock order: `fork.still()`, this lock, the ledger's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from datacenter.options import option
from datacenter.sockets import descriptor_limit, epoll_entry, fork
from datacenter.sockets.epoll_entry import EpollEntry
from datacenter.sockets.events import MonitorEvent
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter.sockets")

ACCEPT_RESERVE: Final = option(
    "limits", "accept_reserve", 32, "descriptors", "L",
    "What peers may not take: held by a process that listens (an eighth of the limit, if that is less), and let go of "
    "for its own needs when no connection is accepted any more.",
)  # fmt: skip
ACCEPT_ROOM: Final = option(
    "limits", "accept_room", 8, "descriptors", "L",
    "Free beside the reserve before connections are accepted again.",
)  # fmt: skip
ACCEPT_CHECK_S: Final = option(
    "limits", "accept_check_s", 0.25, "s", "L",
    "So often a process that listens counts its free descriptors, if no new connection makes it look earlier. So long "
    "at most a listener tries in vain, a thousand times a second, when something else takes the last descriptor.",
)  # fmt: skip
ACCEPT_RETRY_MIN_S: Final = option(
    "limits", "accept_retry_min_s", 0.1, "s", "L",
    "The first pause before a listener that was switched off may accept again; each further one doubles.",
)  # fmt: skip
ACCEPT_RETRY_MAX_S: Final = option(
    "limits", "accept_retry_max_s", 2.0, "s", "L",
    "The longest such pause: so much later than the end of a flood new clients are let in at the latest.",
)  # fmt: skip
_LOW: Final = 4  # fewer free than this, and listeners stop
_LOOK_S: Final = 0.01  # between two looks for a listener that libzmq's I/O thread has not begun to watch
_QUICK_LOOKS: Final = 100
_SETTLED_S: Final = 5.0  # accepting for so long, the next pause is a short one again
_LOG_EVERY_S: Final = 10.0
_ACCOUNT: Final = "accept reserve"
_LOOK: Final = "listener search"
_SEARCH_ROOM: Final = 2 * descriptor_limit.RESERVE  # with less free, what the process asks for comes before the search


@dataclass(frozen=True)
class AdmissionStatistics:
    """`accepting` is False while new connections wait, `since_s` for how long. `pauses` counts since the first
    listener; `unguarded` are listeners that cannot be switched off (libzmq does not watch them with epoll, or not yet).
    """

    accepting: bool
    since_s: float
    pauses: int
    reserve: int
    listeners: int
    unguarded: int


@dataclass
class _Listener:
    number: int
    owner: str
    entry: EpollEntry | None = None
    looks: int = 0


@dataclass
class _Sockets:
    """The sockets that may have listeners: by generation, so that a late event cannot bring back one that is closed."""

    awaited: int = 0  # binds begun whose LISTENING has not been drained
    listeners: dict[str, _Listener] = field(default_factory=dict)  # endpoint -> listener
    ended: Counter[str] = field(default_factory=Counter)  # endpoints given up before their LISTENING was drained


class Admission:
    """One a process: `of_process()`. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # again by a log handler that makes a socket
        self._sockets: dict[int, _Sockets] = {}
        self._ledger: Ledger | None = None
        self._reserve: list[int] = []
        self._looks: dict[int, int] = {}  # epoll -> what it is looked at through, while a listener is searched
        self._accepting = True
        self._since = self._retry_at = self._check_at = 0.0
        self._retry_s = ACCEPT_RETRY_MIN_S
        self._pauses = 0
        self._logged_at = float("-inf")

    # --- listeners come and go

    @contextlib.contextmanager
    def listening(self, generation: int) -> Iterator[None]:
        """Inside, a socket is bound once; `note()` tells of its listener. OSError, before anything is begun, if there
        is no descriptor for finding it.
        """
        with fork.still(), self._lock:
            if not self._sockets:
                self._ledger = Ledger.open()
                self._accepting, self._since, self._pauses = True, time.monotonic(), 0
                self._retry_s = ACCEPT_RETRY_MIN_S
            self._sockets.setdefault(generation, _Sockets()).awaited += 1
        try:
            with fork.still(), self._lock:
                self._begin_search()
            yield
        except BaseException:
            with fork.still(), self._lock:
                socket = self._sockets.get(generation)
                if socket is not None:
                    socket.awaited -= 1
                    if not socket.awaited and not socket.listeners:
                        self._drop(generation)
                self._end_search()
            raise

    def note(self, event: MonitorEvent) -> None:
        """A LISTENING event: from the hub, when it is drained. Ignored for a socket that is closed."""
        with self._lock:
            socket = self._sockets.get(event.generation)
            if socket is None:
                return
            socket.awaited -= 1
            if socket.ended[event.endpoint]:
                socket.ended[event.endpoint] -= 1
            else:
                socket.listeners[event.endpoint] = _Listener(event.value, event.owner)
            self._check_at = 0.0

    def closed(self, generation: int, endpoint: str = "") -> None:
        """A socket is about to stop listening, at one endpoint or all: called before libzmq is told, and from now on
        nothing of it is touched.
        """
        with fork.still(), self._lock:
            socket = self._sockets.get(generation)
            if socket is None:
                return
            if endpoint:
                if socket.listeners.pop(endpoint, None) is None:
                    socket.ended[endpoint] += 1
                return
            self._drop(generation)

    # --- the decision

    def wait_s(self) -> float | None:
        """How long the hub may sleep before it calls `check()`; None for ever."""
        return max(0.0, self._check_at - time.monotonic()) if self._sockets else None

    def check(self, *, accepted: bool = False) -> None:
        """Counts the free descriptors if it is time, or if there was a new connection, and acts on it."""
        now = time.monotonic()
        if not self._sockets or (now < self._check_at and not (accepted and self._accepting)):
            return  # without the locks: the hub asks at every turn
        with fork.still(), self._lock:
            if not self._sockets:
                return
            self._find()
            self._end_search()
            if self._accepting:
                if not self._fill():
                    self._pause(now)
                elif self._retry_s > ACCEPT_RETRY_MIN_S and now - self._since > _SETTLED_S:
                    self._retry_s = ACCEPT_RETRY_MIN_S
            elif now >= self._retry_at:
                self._resume(now)
            soon = any(listener.entry is None and listener.looks < _QUICK_LOOKS for listener in self._listeners())
            self._check_at = now + (_LOOK_S if soon else ACCEPT_CHECK_S)
            if not self._accepting:
                self._check_at = min(self._check_at, self._retry_at)

    def make_room(self) -> None:
        """The process itself needs descriptors: nobody is accepted any more, and the reserve is free for it."""
        with fork.still(), self._lock:
            if descriptor_limit.spare() < _SEARCH_ROOM:
                self._close_looks()
            if self._sockets and self._accepting:
                self._pause(time.monotonic(), own_need=True)

    def statistics(self) -> AdmissionStatistics:
        """See AdmissionStatistics."""
        with self._lock:
            listeners = self._listeners()
            return AdmissionStatistics(
                self._accepting,
                time.monotonic() - self._since if self._sockets else 0.0,
                self._pauses,
                len(self._reserve),
                len(listeners),
                sum(listener.entry is None for listener in listeners),
            )

    # --- with the lock held

    def _listeners(self) -> list[_Listener]:
        return [listener for socket in self._sockets.values() for listener in socket.listeners.values()]

    def _drop(self, generation: int) -> None:
        del self._sockets[generation]
        self._end_search()
        if not self._sockets:
            self._let_go()
            ledger, self._ledger = self._ledger, None
            if ledger is not None:
                ledger.close()

    def _begin_search(self) -> None:
        for epoll in epoll_entry.epolls():
            if epoll not in self._looks:
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    self._looks[epoll] = self._entered(epoll_entry.open_look(epoll), _LOOK)

    def _end_search(self) -> None:
        if any(socket.awaited > 0 for socket in self._sockets.values()):
            return
        if any(listener.entry is None for listener in self._listeners()):
            return
        self._close_looks()

    def _close_looks(self) -> None:
        while self._looks:
            self._close(self._looks.popitem()[1])

    def _entered(self, number: int, account: str) -> int:
        if self._ledger is not None:
            self._ledger.register(number, "file", account)
        return number

    def _close(self, number: int) -> None:
        if self._ledger is not None:
            self._ledger.forget(number)  # first: once closed, the number may be another's
        os.close(number)

    def _find(self) -> None:
        """libzmq's I/O thread registers a new listener some time after the bind."""
        for listener in self._listeners():
            if listener.entry is None:
                listener.looks += 1
                try:
                    # There is nothing to look through if room was needed, or if libzmq let go of it when it was found.
                    if not self._looks and descriptor_limit.spare() >= _SEARCH_ROOM:
                        self._begin_search()
                    listener.entry = epoll_entry.find(listener.number, self._looks)
                except OSError as error:
                    log.debug("the listener of %s was not found: %s", listener.owner, error)
                if listener.entry is not None and not self._accepting:
                    listener.entry.switch(on=False)

    def _fill(self) -> bool:
        """Take what the reserve lacks. False if descriptors run out."""
        wanted = _wanted()
        while len(self._reserve) < wanted:
            if descriptor_limit.spare() <= _LOW:
                return False
            try:
                number = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
            self._reserve.append(self._entered(number, _ACCOUNT))
        return descriptor_limit.spare() > _LOW and self._given()

    def _given(self) -> bool:
        """Whether the kernel gives a socket: where the machine or its memory is at the limit (ENFILE, ENOMEM), accept
        fails and libzmq's listener spins, however many descriptors this process may have.

        In the ledger while it is open: a child that C code forks at this moment keeps nothing of it.
        """
        if self._ledger is None:
            return True
        try:
            number = self._ledger.open_socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError:
            return False
        self._ledger.close_number(number)
        return True

    def _let_go(self) -> None:
        while self._reserve:
            self._close(self._reserve.pop())

    def _pause(self, now: float, *, own_need: bool = False) -> None:
        short = descriptor_limit.spare() < ACCEPT_ROOM + descriptor_limit.RESERVE
        for listener in self._listeners():
            if listener.entry is not None and not listener.entry.switch(on=False):
                log.warning("libzmq watches the listener of %s no more", listener.owner)
                listener.entry = None
        self._let_go()
        self._accepting, self._since = False, now
        self._retry_at = self._check_at = now
        if not short:  # only for a moment, in which no descriptor must go (a context that starts)
            return
        self._pauses += 1
        self._retry_at = now + self._retry_s
        self._retry_s = min(ACCEPT_RETRY_MAX_S, 2 * self._retry_s)
        self._check_at = self._retry_at
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            self._tell_of_pause(own_need)

    def _tell_of_pause(self, own_need: bool) -> None:
        spare, needed = descriptor_limit.spare(), _wanted() + ACCEPT_ROOM
        if spare >= needed and not own_need:
            log.warning(
                "the kernel gives no descriptor although this process may have %d more: no connection is accepted "
                "until it does; those that are open go on. See /proc/sys/fs/file-nr, and what memory is left",
                spare,
            )  # fmt: skip
            return
        until = f"until there are {needed}" if spare < needed else "until this process has what it needs for itself"
        log.warning(
            "%d of %d descriptors are free: no connection is accepted %s; those that are open go on. What holds them "
            "is told by `leakline %d`; `ulimit -n` raises the limit",
            spare, descriptor_limit.limit(), until, os.getpid(),
        )  # fmt: skip

    def _resume(self, now: float) -> None:
        if descriptor_limit.spare() < _wanted() + ACCEPT_ROOM or not self._fill():
            self._let_go()
            self._retry_at = now + ACCEPT_RETRY_MIN_S
            return
        for listener in self._listeners():
            if listener.entry is not None:
                listener.entry.switch(on=True)
        log.debug("connections are accepted again, after %.2f s", now - self._since)
        self._accepting, self._since = True, now

    def __repr__(self) -> str:
        state = "accepting" if self._accepting else "paused"
        return f"<Admission {state}, {len(self._listeners())} listeners, {len(self._reserve)} in reserve>"


def _wanted() -> int:
    """How many descriptors the reserve should have: the limit may change while the process runs."""
    return min(ACCEPT_RESERVE, descriptor_limit.limit() // 8)


_of_process = Admission()


def of_process() -> Admission:
    """The admission of this process; in a forked child a new one."""
    fork.settle()
    return _of_process


def _make_room() -> None:
    of_process().make_room()


def _reset_in_child() -> None:
    """What was inherited is closed through the ledger; the entries are in epolls that are shared with the parent."""
    global _of_process
    _of_process = Admission()


fork.in_child(_reset_in_child)
descriptor_limit.on_shortage(_make_room)
