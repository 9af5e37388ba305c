"""What a process has once, however many clients and services it makes: context, monitor hub, ledger, reactor, sessions.

Clients and services `acquire()` it and `release()` it; the last one out closes everything in the reverse order of
creation: sessions (with a goodbye), reactor, sockets, monitor hub, context, ledger. Each step is bounded.

Exit (docs/exit.md): an atexit hook closes what was forgotten, youngest first, before the interpreter takes modules
apart, and waits for what other threads are closing; what it found open, and what it had to leave open, it names in one
log line. All of it together takes no longer than CLOSE_DEADLINE_S, and no signal interrupts it. Afterwards nothing can
be made any more: `acquire` raises ClosedError.
Fork: a child closes the descriptors that it inherited, by number, and starts without a runtime; the parent's objects
raise ForkedError there.

Lock order: `_lock` (module) is never held while a thread is joined.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from datacenter.errors import ClosedError
from datacenter.interruptions import uninterrupted
from datacenter.options import CLOSE_DEADLINE_S
from datacenter.reactor import Reactor
from datacenter.session import Session, SessionOptions
from datacenter.sockets import descriptor_limit, fork
from datacenter.sockets.addresses import each_for_connect
from datacenter.sockets.context import SocketContext
from datacenter.sockets.ledger import Ledger
from datacenter.sockets.threads import InternalLock

log = logging.getLogger("datacenter")

#: opened at the start: the reactor's loop (3), and for a moment the ledger's file
DESCRIPTORS: Final = 4

#: the exit's steps share so much of CLOSE_DEADLINE_S; the rest is for the least waits of those that come too late, and
#: for the interpreter's own end
EXIT_SHARE: Final = 0.8
#: a step of the exit may wait so long although all of its time is used up
LEAST_WAIT_S: Final = 0.02

_lock = InternalLock()
_current: Runtime | None = None
_runtimes: dict[int, Runtime] = {}  # all that are not closed to the end, by id
_open_objects: list[weakref.ref[Closable]] = []
_closers: set[threading.Thread] = set()  # that close something just now
_silent: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()  # loops that did not answer during the exit
_exit_by: float | None = None  # when the exit must be over, once it has begun
_ended = False  # the exit hook has begun: nothing new is made


class Closable(Protocol):
    """A public object that the exit hook closes if its owner forgot it. `close_now` is bounded and works in any
    thread.
    """

    def close_now(self) -> None: ...


class Runtime:
    """See the module. Thread-safe. Get it by `acquire`."""

    def __init__(self) -> None:
        self.epoch = fork.current()
        self.pid = os.getpid()
        self._users = 0
        self._sessions: dict[str, tuple[Session, int]] = {}
        self._ending = threading.RLock()
        self._left: tuple[str, ...] | None = None
        self.ledger = Ledger.open()
        debug = logging.getLogger("datacenter.sockets").isEnabledFor(logging.DEBUG)
        self.context = SocketContext("datacenter", ledger=self.ledger, debug=debug)
        try:
            with descriptor_limit.typed("datacenter's reactor"):
                self.reactor = Reactor(self.ledger)
        except BaseException:
            self.context.close()
            self.ledger.close()
            raise
        _runtimes[id(self)] = self

    def session(self, address: str, options: SessionOptions | None = None) -> Session:
        """The process's session with this broker, or with one of several (tcp://…,tcp://…); made at the first call,
        with that call's options.

        Give it back by `release_session`. May block in name resolution. Raises AddressError, InsecureAddressError,
        DescriptorLimitError, ForkedError.
        """
        self.check_process()
        address = each_for_connect(address)  # a name is resolved here, in the caller's thread, before any lock
        with _lock:
            session, users = self._sessions.get(address, (None, 0))
            if session is None:
                session = Session(address, self.context, self.reactor, options or SessionOptions())
            self._sessions[address] = (session, users + 1)
            return session

    def release_session(self, session: Session) -> None:
        """The last user closes the session."""
        with _lock:
            known, users = self._sessions.get(session.address, (session, 0))
            if users > 1:
                self._sessions[session.address] = (known, users - 1)
                return
            self._sessions.pop(session.address, None)
        session.close(patience_s() / 2)

    def check_process(self) -> None:
        """Raises ForkedError in a child of the process that made this runtime."""
        fork.check(self.epoch, "This client, service or broker")

    def close(self) -> tuple[str, ...]:
        """Closes everything, in order, and says what it had to leave open. Idempotent, also after an interruption;
        bounded; every caller waits for the same end.
        """
        if not self._ending.acquire(timeout=patience_s()):
            return ("what another thread is closing",)
        try:
            if self._left is None:
                self._left = self._close()
                _runtimes.pop(id(self), None)
            return self._left
        finally:
            self._ending.release()

    def _close(self) -> tuple[str, ...]:
        left: tuple[str, ...] = ()
        for session, _ in list(self._sessions.values()):
            session.close(patience_s() / 2)
        if not self.reactor.stop(patience_s()):
            left += ("the reactor",)
        # At the exit a thread may still use its sockets: they are that thread's to close, when it hears ETERM.
        report = self.context.close(patience_s(), everything=_exit_by is None)
        left += report.still_open
        self._sessions.clear()
        self.ledger.close()
        if left:
            log.warning("not closed within %.1f s: %s", CLOSE_DEADLINE_S, ", ".join(left))
        return left

    def __repr__(self) -> str:
        return f"<Runtime of {self._users} users, sessions: {', '.join(self._sessions) or 'none'}>"


def acquire() -> Runtime:
    """The process's runtime, made if there is none. Each `acquire` needs one `release`.

    Raises ClosedError once the interpreter ends, DescriptorLimitError, DatacenterError when no thread can be started.
    """
    global _current
    fork.settle()
    if _ended:
        raise ClosedError(
            "the interpreter is ending, and datacenter has ended before it",
            "Do it earlier: an atexit handler registered after `import datacenter` runs before datacenter ends.",
        )
    with _lock:
        if _current is None:
            descriptor_limit.require(DESCRIPTORS, "datacenter")
            _current = Runtime()
        _current._users += 1
        return _current


def release(runtime: Runtime) -> None:
    """Gives the runtime back; the last one closes it."""
    global _current
    if fork.ended(runtime.epoch):
        return
    with _lock:
        runtime._users -= 1
        if runtime._users != 0:
            return
        if _current is runtime:
            _current = None
    runtime.close()


def patience_s() -> float:
    """How long one step of a close may wait: CLOSE_DEADLINE_S; all those of the exit together no longer than that."""
    return CLOSE_DEADLINE_S if _exit_by is None else max(LEAST_WAIT_S, _exit_by - time.monotonic())


def run_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> bool:
    """Runs `function` where the sockets of `loop` may be used: in its thread while it runs, here when it does not.

    Waits for it, bounded; False if the loop does not answer: what it owns is left alone.
    """
    if not loop.is_running() or asyncio._get_running_loop() is loop:
        function()
        return True
    if loop in _silent:
        return False
    done = threading.Event()

    def run() -> None:
        try:
            function()
        finally:
            done.set()

    try:
        loop.call_soon_threadsafe(run)
    except RuntimeError:  # it has ended meanwhile
        function()
        return True
    if done.wait(patience_s() / 2):
        return True
    log.warning("an event loop did not answer within %.1f s; its sockets are left open", CLOSE_DEADLINE_S / 2)
    if _exit_by is not None:
        _silent.add(loop)
    return False


def start_closer(close: Callable[[], None]) -> bool:
    """Runs `close` in a thread of its own, which the exit waits for. False if there can be none. Takes no lock."""

    def run() -> None:
        try:
            close()
        finally:
            _closers.discard(thread)

    thread = threading.Thread(target=run, name="datacenter-close", daemon=True)
    _closers.add(thread)
    try:
        thread.start()
    except RuntimeError:  # Python 3.12 starts none once the interpreter ends, and there is `ulimit -u`
        return False
    finally:
        if not thread.is_alive():  # also after a Ctrl-C
            _closers.discard(thread)
    return True


async def apart(function: Callable[[], None]) -> None:
    """Runs what blocks for a bounded time in a thread of its own: the loop's default executor may be full of others."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def run() -> None:
        try:
            function()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))

    if start_closer(run):
        await asyncio.shield(done)
    else:
        function()


def remember(thing: Closable) -> None:
    """Has `thing` closed at the interpreter's exit if nobody did before."""
    with _lock:
        _open_objects[:] = [known for known in _open_objects if known() is not None]
        _open_objects.append(weakref.ref(thing))


def forget(thing: Closable) -> None:
    """`thing` was closed by its owner."""
    with _lock:
        _open_objects[:] = [known for known in _open_objects if known() not in (None, thing)]


def give_up(thing: object, close: Callable[[], None]) -> None:
    """For finalisers: `thing` was collected unclosed. Warns, and has `close` run in a thread of its own.

    A finaliser may run in any thread, at any allocation, with any lock held: it must take none and wait for nothing.
    """
    warnings.warn(f"{thing!r} was collected unclosed; close() it, or use `with`", ResourceWarning, stacklevel=3)
    start_closer(close)  # if there can be no thread, the exit hook closes it with the rest


def close_all() -> None:
    """Closes what is open in this process, youngest first, then the runtime. For the exit hook and for tests."""
    global _exit_by
    fork.settle()
    started = time.monotonic()
    _exit_by = started + EXIT_SHARE * CLOSE_DEADLINE_S
    try:
        found = _close_objects()
        for closer in list(_closers):
            # RuntimeError: another thread is about to start it, or is this one. What it has is closed below.
            with contextlib.suppress(RuntimeError):
                closer.join(patience_s() / 2)
        left: tuple[str, ...] = ()
        for runtime in list(_runtimes.values()):
            found.append(repr(runtime))
            left += runtime.close()
    finally:
        _exit_by = None
        _silent.clear()
    if found:
        tail = f"; left open: {', '.join(left)}" if left else ""
        log.info("closed at exit in %.0f ms: %s%s", (time.monotonic() - started) * 1000, ", ".join(found), tail)


def _close_objects() -> list[str]:
    """Closes what is remembered, youngest first; returns what that was."""
    global _current
    found: list[str] = []
    while True:
        with _lock:
            if not _open_objects:
                _current = None
                return found
            thing = _open_objects.pop()()
        if thing is None:
            continue
        try:
            found.append(repr(thing))
            thing.close_now()
        except Exception:
            log.exception("a %s could not be closed at exit", type(thing).__name__)


def _at_exit() -> None:
    global _ended
    _ended = True
    uninterrupted(close_all)


def _after_fork_in_child() -> None:
    global _current, _lock
    _lock = InternalLock()
    _current = None
    _open_objects.clear()
    _closers.clear()
    for runtime in _runtimes.values():
        fork.keep_for_ever(runtime)  # its finalisers would close numbers that are others' by now
        runtime.reactor.leave()
    _runtimes.clear()


fork.in_child(_after_fork_in_child)
# Twice: a Ctrl-C between the hook's call and its first statement takes the first one away.
atexit.register(_at_exit)
atexit.register(_at_exit)
