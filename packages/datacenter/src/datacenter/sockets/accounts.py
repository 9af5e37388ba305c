"""What `sockets/` asks of the ledger, and how it goes on where none is kept.

The ledger itself is ledger.py; this file only keeps the two apart, so that sockets can be tested and used without hooks
in libzmq.
"""

from __future__ import annotations

import contextlib
from typing import Any, Protocol


class Accounts(Protocol):
    """The part of the ledger that sockets write. Every method may be called from any thread."""

    def owner(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """What libzmq opens in this thread inside the `with` belongs to `name`."""

    def assign(self, fd: int, name: str) -> Any:
        """A descriptor that libzmq opened in its I/O thread belongs to `name`. Ignored if libzmq does not hold it (any
        more).
        """

    def register(self, fd: int, kind: str, owner: str) -> Any:
        """A descriptor that datacenter opened itself."""

    def forget(self, fd: int) -> Any:
        """Datacenter is about to close a descriptor that it registered."""

    def release_owner(self, name: str) -> Any:
        """`name` is closed; libzmq's reaper will close what is left of it."""


class Unaccounted:
    """No ledger: takes note of nothing."""

    def owner(self, name: str) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def assign(self, fd: int, name: str) -> None:
        return

    def register(self, fd: int, kind: str, owner: str) -> None:
        return

    def forget(self, fd: int) -> None:
        return

    def release_owner(self, name: str) -> None:
        return
