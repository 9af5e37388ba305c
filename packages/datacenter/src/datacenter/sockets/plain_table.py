"""The ledger's table where leakline's native library is not there: what Python itself registers, and nothing else.

It has the methods of leakline.recorder.DescriptorTable that the ledger uses. No other process can read it.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from leakline.recorder import Counters, Entry


class PlainTable:
    """Registered descriptors in a dictionary. Any thread may call any method; a forked child has a copy."""

    path = None

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._generations = itertools.count(1)
        self._pid = os.getpid()
        self._opened = 0
        self._closed = 0

    @contextmanager
    def owner(self, name: str) -> Iterator[int]:
        """Nothing is hooked, so nothing is owned."""
        yield 0

    @contextmanager
    def standby(self, *, eventfds: int = 0, epolls: int = 0) -> Iterator[None]:
        """Nothing is hooked, so libzmq opens its own."""
        yield

    def release_owner(self, name: str) -> None:
        """Nothing to release."""

    def assign(self, number: int, owner: str, generation: int = 0) -> bool:
        """What libzmq opened is not known here."""
        return False

    def put(self, number: int, kind: str, owner: str = "") -> bool:
        """Records a descriptor that the caller opened."""
        self._opened += 1
        self._entries[number] = Entry(
            number, kind, owner, time.monotonic(), threading.get_native_id(), "registered", next(self._generations)
        )
        return True

    def open_socket(self, family: int, type_: int) -> int:
        """A new socket's number. It is not recorded: whoever closes it would not be seen."""
        return socket.socket(family, type_).detach()

    def close_number(self, number: int) -> None:
        """Closes a descriptor and removes its record, if there is one."""
        self.forget(number)
        os.close(number)

    def forget(self, number: int) -> bool:
        """Removes a record. False if there was none."""
        found = self._entries.pop(number, None) is not None
        self._closed += found
        return found

    def entries(self) -> list[Entry]:
        """All records, in order of their number; inherited ones if this process is a child of the table's maker."""
        inherited = self._pid != os.getpid()
        found = sorted(self._entries.values(), key=lambda entry: entry.number)
        return [msgspec.structs.replace(entry, inherited=inherited) for entry in found]

    def counters(self) -> Counters:
        """Each record is one step, so a reader between two of them sees no half."""
        changes = 2 * (self._opened + self._closed)
        return Counters(changes, self._opened, self._closed, unpublished=len(self._entries), out_of_range=0)

    def set_complete(self, complete: bool, because: str = "") -> None:
        """There is no file that could say it."""

    def close(self) -> None:
        """Nothing is held."""
