"""What a process has once, however many clients and services it makes: context, monitor hub, ledger, reactor, sessions.

Clients and services `acquire()` it and `release()` it; the last one out closes everything in the reverse order of
creation: sessions (with a goodbye), reactor, sockets, monitor hub, context, ledger. Each step is bounded.

Exit: what was forgotten in globals is closed by an atexit hook, youngest first, before the interpreter takes modules
apart; what it found open it names in one log line.
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

from datacenter.options import CLOSE_DEADLINE_S
from datacenter.reactor import Reactor
from datacenter.session import Session, SessionOptions
from datacenter.sockets import descriptor_limit, fork
from datacenter.sockets.addresses import for_connect
from datacenter.sockets.context import SocketContext
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter")

#: opened at the start: the reactor's loop (3), and for a moment the ledger's file
DESCRIPTORS: Final = 4

_lock = threading.Lock()
_current: Runtime | None = None
_open_objects: list[weakref.ref[Closable]] = []


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
        self.ledger = Ledger.open()
        debug = logging.getLogger("datacenter.sockets").isEnabledFor(logging.DEBUG)
        self.context = SocketContext("datacenter", ledger=self.ledger, debug=debug)
        self.reactor = Reactor(self.ledger)
        self._users = 0
        self._sessions: dict[str, tuple[Session, int]] = {}

    def session(self, address: str, options: SessionOptions | None = None) -> Session:
        """The process's session with this broker; made at the first call, with that call's options.

        Give it back by `release_session`. May block in name resolution. Raises AddressError, InsecureAddressError,
        DescriptorLimitError, ForkedError.
        """
        self.check_process()
        address = for_connect(address).text  # a name is resolved here, in the caller's thread, before any lock
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
        session.close(CLOSE_DEADLINE_S / 2)

    def check_process(self) -> None:
        """Raises ForkedError in a child of the process that made this runtime."""
        fork.check(self.epoch, "This client, service or broker")

    def close(self) -> None:
        for session, _ in list(self._sessions.values()):
            session.close(CLOSE_DEADLINE_S / 2)
        self._sessions.clear()
        if not self.reactor.stop(CLOSE_DEADLINE_S):
            log.warning("the reactor did not end within %.1f s", CLOSE_DEADLINE_S)
        report = self.context.close(CLOSE_DEADLINE_S)
        if not report.clean:
            log.warning(
                "ZeroMQ did not end within %.1f s; still open: %s", report.seconds, ", ".join(report.still_open)
            )
        self.ledger.close()


def acquire() -> Runtime:
    """The process's runtime, made if there is none. Each `acquire` needs one `release`."""
    global _current
    fork.settle()
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


def run_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Runs `function` where the sockets of `loop` may be used: in its thread while it runs, here when it does not.

    Waits for it at most CLOSE_DEADLINE_S; what a loop that does not answer owns is left alone.
    """
    if not loop.is_running():
        function()
        return
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
        return
    if not done.wait(CLOSE_DEADLINE_S):
        log.warning("an event loop did not answer within %.1f s; its sockets are left open", CLOSE_DEADLINE_S)


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

    threading.Thread(target=run, name="datacenter-close", daemon=True).start()
    await asyncio.shield(done)


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
    with contextlib.suppress(RuntimeError):  # the interpreter is ending: the exit hook has closed everything
        threading.Thread(target=close, name="datacenter-close", daemon=True).start()


def close_all() -> None:
    """Closes what is open in this process, youngest first, then the runtime. For the exit hook and for tests."""
    global _current
    fork.settle()
    started = time.monotonic()
    names: list[str] = []
    while True:
        with _lock:
            if not _open_objects:
                break
            thing = _open_objects.pop()()
        if thing is not None:
            names.append(repr(thing))
            try:
                thing.close_now()
            except Exception:
                log.exception("%r could not be closed at exit", thing)
    with _lock:
        left, _current = _current, None
    if left is not None:
        names.append("what was collected unclosed")
        left.close()
    if names:
        log.info("closed at exit in %.0f ms: %s", (time.monotonic() - started) * 1000, ", ".join(names))


def _after_fork_in_child() -> None:
    global _current, _lock
    _lock = threading.Lock()
    runtime, _current = _current, None
    _open_objects.clear()
    if runtime is not None:
        fork.keep_for_ever(runtime)  # its finalisers would close numbers that are others' by now
        runtime.reactor.leave()


fork.in_child(_after_fork_in_child)
atexit.register(close_all)
