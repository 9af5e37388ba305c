"""Threads of datacenter's own: which of them must never wait for the others, and what to say when none can start."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from datacenter.errors import ClosedError, DatacenterError
from datacenter.sockets import fork

_internal: set[int] = set()  # idents of threads that others wait for


@contextlib.contextmanager
def internal() -> Iterator[None]:
    """What the calling thread does inside, others of datacenter wait for: it must never wait for them."""
    ident = threading.get_ident()
    _internal.add(ident)
    try:
        yield
    finally:
        _internal.discard(ident)


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
