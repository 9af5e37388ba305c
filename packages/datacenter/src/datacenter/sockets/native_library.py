"""A native library of ours that was built from other sources lacks a function: a typed error, and what to type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from datacenter.errors import DatacenterError


@contextlib.contextmanager
def of_these_sources() -> Iterator[None]:
    """Inside, a function that a library (ctypes) lacks is a DatacenterError."""
    try:
        yield
    except AttributeError as error:
        raise DatacenterError(
            f"datacenter's native library was built from other sources: {error}",
            "Install datacenter again (in a checkout: `make native`).",
        ) from error
