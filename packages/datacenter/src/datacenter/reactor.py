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
from datacenter.sockets import fork
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter")
T = TypeVar("T")


class Reactor:
    """Thread-safe: `call`, `submit`, `stop`. Does not survive fork()."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._epoch = fork.current()
        with fork.still():
            selector = selectors.DefaultSelector()
            self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(selector)
            self._numbers = register_loop(ledger, self.loop, selector, "reactor")
        self._thread = threading.Thread(target=self._run, name="datacenter-reactor", daemon=True)
        self._thread.start()

    def inside(self) -> bool:
        """Whether the calling thread is the reactor's."""
        return threading.current_thread() is self._thread

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Runs `function` in the reactor soon. Raises ClosedError after `stop`."""
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError as error:
            raise ClosedError("the process's datacenter runtime is closed", "Make a new Client or Service.") from error

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Runs a coroutine in the reactor; its result by a future of the calling thread's world."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError as error:
            coroutine.close()
            raise ClosedError("the process's datacenter runtime is closed", "Make a new Client or Service.") from error

    def stop(self, deadline_s: float) -> bool:
        """Ends the thread and closes the loop. Idempotent; True if it ended within `deadline_s`."""
        if self._thread.is_alive():
            try:
                self.loop.call_soon_threadsafe(self.loop.stop)
            except RuntimeError:
                return True
            self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        except OSError:
            if not fork.ended(self._epoch):
                raise
        finally:
            if not fork.ended(self._epoch):
                self._end_loop()

    def _end_loop(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        with fork.still():
            for number in self._numbers:
                self._ledger.forget(number)
            self.loop.close()

    def leave(self) -> None:
        """In a forked child, which has no reactor thread unless a callback in it forked: that one ends as the callback
        returns, before it looks at descriptors that are closed here. Only a flag is set, in the child's own memory.
        """
        self.loop.stop()


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
