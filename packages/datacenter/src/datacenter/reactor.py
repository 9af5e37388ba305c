"""One background thread with an event loop of its own: the process's session lives there, and the sockets of
synchronous clients.

No code of the user ever runs in it, so a handler that computes for a minute, or a loop that is blocked, cannot starve
the heartbeats.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from datacenter.errors import ClosedError
from datacenter.options import CLOSE_DEADLINE_S
from datacenter.sockets import fork
from datacenter.sockets.ledger import Ledger
from datacenter.sockets.threads import InternalLock, internal, start

log = logging.getLogger("datacenter")
T = TypeVar("T")


class Reactor:
    """Thread-safe: `call`, `run`, `stop`. Does not survive fork()."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._epoch = fork.current()
        with fork.still():
            selector = selectors.DefaultSelector()
            self.loop: asyncio.AbstractEventLoop = SelectorLoop(selector)
            self._numbers = register_loop(ledger, self.loop, selector, "reactor")
        self._lock = InternalLock()
        self._stopping = self._ended = False
        self._thread = threading.Thread(target=self._run, name="datacenter-reactor", daemon=True)
        try:
            start(self._thread, "the reactor")
        except BaseException:
            self._close_loop()
            raise

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Runs `function` in the reactor soon; what was accepted runs, also while it stops. Raises ClosedError after
        `stop`.
        """
        with self._lock:
            if self._ended:
                raise ClosedError("the process's datacenter runtime is closed", "Make a new Client or Service.")
            self.loop.call_soon_threadsafe(function, *args)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the reactor and waits for its result, in another thread. Raises ClosedError if the
        reactor ends before it.
        """
        try:
            with self._lock:
                if self._ended:
                    raise concurrent.futures.CancelledError
                future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
            return future.result()
        except concurrent.futures.CancelledError:
            coroutine.close()
            raise ClosedError("the process's datacenter runtime is closed", "Make a new Client or Service.") from None

    def stop(self, deadline_s: float) -> bool:
        """Ends the thread and closes the loop. Idempotent; True if it ended within `deadline_s`."""
        with self._lock:
            if not self._stopping:  # once: a second one would stop the loop while it finishes
                self._stopping = True
                self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            with internal():
                self.loop.run_forever()
        except OSError:
            if not fork.ended(self._epoch):
                raise
        finally:
            if not fork.ended(self._epoch):
                with self._lock:
                    self._ended = True
                self.loop.run_until_complete(_finish())
                self._close_loop()

    def _close_loop(self) -> None:
        with fork.still():
            for number in self._numbers:
                self._ledger.forget(number)
            self.loop.close()

    def leave(self) -> None:
        """In a forked child, which has no reactor thread unless a callback in it forked: that one ends as the callback
        returns, before it looks at descriptors that are closed here. Only a flag is set, in the child's own memory.
        """
        self.loop.stop()


async def _finish() -> None:
    """What was accepted has had its turn by now; what still waits for something is cancelled."""
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.wait(waiting, timeout=CLOSE_DEADLINE_S / 10)


class SelectorLoop(asyncio.SelectorEventLoop):
    """One that leaves nothing behind, and says nothing, when it cannot be made for lack of descriptors."""

    def _make_self_pipe(self) -> None:
        try:
            super()._make_self_pipe()  # type: ignore[misc]
        except OSError:
            self._selector.close()  # type: ignore[attr-defined]
            self._closed = True  # the finaliser would warn, and close a pipe that is not there
            raise


def register_loop(
    ledger: Ledger, loop: asyncio.AbstractEventLoop, selector: selectors.BaseSelector | None, owner: str
) -> list[int]:
    """Enters a loop's own descriptors (its epoll, its wake-up socket pair) into the ledger; returns their numbers.

    asyncio does not publish the socket pair; the names used here are the same in CPython 3.10 to 3.14, and where they
    are not the ledger shows two unowned sockets rather than a wrong owner.
    """
    numbers: list[int] = []
    fileno = getattr(selector, "fileno", None)
    if fileno is not None:
        numbers.append(fileno())
        ledger.register(numbers[-1], "epoll", owner)
    for name in ("_ssock", "_csock"):
        end = getattr(loop, name, None)
        if end is not None:
            numbers.append(end.fileno())
            ledger.register(numbers[-1], "unix", owner)
    return numbers
