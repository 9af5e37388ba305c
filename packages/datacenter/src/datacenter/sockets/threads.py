"""Threads of datacenter's own: which of them must never wait for the others, and what to say when none can start."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from datacenter.errors import ClosedError, DatacenterError
from datacenter.sockets import fork

_internal: dict[int, int] = {}  # ident of a thread that others wait for -> how often it has said so


@contextlib.contextmanager
def internal() -> Iterator[None]:
    """What the calling thread does inside, others of datacenter wait for: it must never wait for them."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    ident = threading.get_ident()
    _internal[ident] = _internal.get(ident, 0) + 1


def _leave() -> None:
    ident = threading.get_ident()
    times = _internal.pop(ident, 0) - 1
    if times > 0:
        _internal[ident] = times


class InternalLock:
    """A lock whose holder must not wait for other threads of datacenter, and may enter it again.

    The garbage collector runs finalisers at any allocation, also under this lock: one of the user's that makes a call
    or closes a client would else wait for a thread that waits for the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def acquire(self, blocking: bool = True) -> bool:
        """True if it is held now."""
        got = self._lock.acquire(blocking)
        if got:
            _enter()
        return got

    def release(self) -> None:
        _leave()
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def in_internal() -> bool:
    """Whether the caller runs in such a thread: a listener, or a finaliser that the garbage collector runs there."""
    return threading.get_ident() in _internal


def start(thread: threading.Thread, what: str) -> None:
    """Starts it. Raises ClosedError while the interpreter ends (from Python 3.12 it starts no thread then),
    DatacenterError where none can be had.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if "shutdown" in str(error):
            raise ClosedError(f"{what} has no thread: {error}", "Do it before the program ends.") from error
        hint = "Use the main interpreter." if "subinterpreter" in str(error) else "Raise the limit: `ulimit -u`."
        raise DatacenterError(f"{what} has no thread: {error}", hint) from error


fork.in_child(_internal.clear)  # a child's threads may get the same idents
