"""Futures that are ended once, whoever comes first: results and errors, and one future's end passed on to another."""

from __future__ import annotations

import concurrent.futures
from typing import Any, TypeVar

T = TypeVar("T")


def succeed(future: concurrent.futures.Future[T], value: T) -> None:
    """Ends it with a result, unless it was cancelled."""
    if future.set_running_or_notify_cancel():
        future.set_result(value)


def fail(future: concurrent.futures.Future[Any], error: BaseException) -> None:
    """Ends it with an error, unless it has ended."""
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_exception(error)


def chain(inner: concurrent.futures.Future[T], outer: concurrent.futures.Future[T]) -> None:
    """As `inner` ends, so does `outer`."""

    def copy(done: concurrent.futures.Future[T]) -> None:
        error = done.exception()
        if error is not None:
            fail(outer, error)
        else:
            succeed(outer, done.result())

    inner.add_done_callback(copy)
