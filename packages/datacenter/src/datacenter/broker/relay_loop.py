"""The relay's data path: moves calls from a front ROUTER to instances' DEALERs, and replies back. In C where it was
built (native/relay_loop.h says what it does and why it cannot block), else in Python, message by message the same.

Not `zmq.proxy`: it ends only with its context, cannot have an instance come or go, keeps no counts, and one client or
instance that does not read stops or silently loses the others' messages.

A loop belongs to one thread, the one that uses its sockets; `counts()` and `in_flight()` may be called from any,
`close()` excepted.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from datacenter.errors import DatacenterError
from datacenter.sockets import libzmq
from datacenter.sockets.native_library import of_these_sources
from datacenter.sockets.owned import OwnedSocket

LIBRARY = Path(__file__).parent / "native" / "librelay.so"


class Outcome(enum.IntEnum):
    """Why `run` returned; enum relay_outcome of native/relay_loop.h."""

    WOKEN = 0
    TIMEOUT = 1
    DRAINED = 2
    TERMINATED = 3
    FAILED = 4


@dataclass(frozen=True)
class RelayCounts:
    """Messages since the start; struct relay_counts of native/relay_loop.h, in its order.

    A call ends as one of `replies`, `lost`, `expired` and `unanswered`, or, with its client, of `replies_no_room` and
    `replies_no_client`.
    """

    calls: int = 0
    replies: int = 0
    lost: int = 0
    expired: int = 0
    unanswered: int = 0
    unknown_replies: int = 0
    malformed_calls: int = 0
    duplicate_calls: int = 0
    malformed_replies: int = 0
    replies_no_room: int = 0
    replies_no_client: int = 0


@dataclass(frozen=True)
class LoopLimits:
    """Struct relay_limits of native/relay_loop.h, in its order; RelayOptions says what they mean."""

    max_instances: int
    max_waiting: int
    max_in_flight: int
    late_reply_ms: int


class RelayLoop(Protocol):
    """What a relay needs of its loop. Slots are small numbers that are used again."""

    def add(self, instance: OwnedSocket, lost: bytes) -> int | None:
        """A slot for an instance's DEALER; None if all are taken. It gets no call until it is ready.

        lost: what its calls in flight are answered when it is removed (relay_answers.py).
        """

    def ready(self, slot: int) -> None:
        """Its connection stands: calls go to it from now on."""

    def retire(self, slot: int) -> None:
        """No more calls to it; its replies go on."""

    def in_flight(self, slot: int) -> int:
        """Calls that it was handed, has not answered, and is still expected to."""

    def remove(self, slot: int) -> int:
        """Forgets it: the replies that have arrived are delivered, its other calls are lost. Returns how many of these.

        Its socket may be closed then.
        """

    def run(self, timeout_ms: int) -> Outcome:
        """Moves messages until there is something to decide; timeout_ms < 0: without a limit."""

    def flush(self) -> None:
        """Delivers the replies that have arrived; bounded."""

    def error(self) -> int:
        """The errno behind FAILED."""

    def counts(self) -> RelayCounts:
        """See RelayCounts."""

    def close(self) -> None:
        """Frees it, with the calls that wait. The sockets stay open."""


class _Counts(ctypes.Structure):
    _fields_ = [(name, c_uint64) for name in RelayCounts.__dataclass_fields__]


class _Limits(ctypes.Structure):
    _fields_ = [(name, c_uint32) for name in LoopLimits.__dataclass_fields__]


class _Library:
    """The functions of librelay.so. `slow` releases the GIL; `quick` keeps it: none of those waits for anything."""

    def __init__(self) -> None:
        slow, quick = ctypes.CDLL(str(LIBRARY)), ctypes.PyDLL(str(LIBRARY))
        self.run = slow.relay_loop_run
        self.run.argtypes, self.run.restype = [c_void_p, c_int], c_int
        self.flush = slow.relay_loop_flush
        self.flush.argtypes, self.flush.restype = [c_void_p], c_int
        self.remove = slow.relay_loop_remove
        self.remove.argtypes, self.remove.restype = [c_void_p, c_int], c_int64
        self.new = quick.relay_loop_make
        self.new.argtypes = [POINTER(c_void_p), c_void_p, c_int, POINTER(_Limits), c_char_p, c_size_t]
        self.new.restype = c_void_p
        self.free = quick.relay_loop_free
        self.free.argtypes, self.free.restype = [c_void_p], None
        self.add = quick.relay_loop_add
        self.add.argtypes, self.add.restype = [c_void_p, c_void_p, c_char_p, c_size_t], c_int
        self.ready = quick.relay_loop_ready
        self.ready.argtypes, self.ready.restype = [c_void_p, c_int], None
        self.retire = quick.relay_loop_retire
        self.retire.argtypes, self.retire.restype = [c_void_p, c_int], c_int64
        self.in_flight = quick.relay_loop_in_flight
        self.in_flight.argtypes, self.in_flight.restype = [c_void_p, c_int], c_int64
        self.error = quick.relay_loop_error
        self.error.argtypes, self.error.restype = [c_void_p], c_int
        self.counts = quick.relay_loop_counts
        self.counts.argtypes, self.counts.restype = [c_void_p, POINTER(_Counts)], None
        name = quick.relay_function_name
        name.argtypes, name.restype = [c_uint], c_char_p
        names: list[str] = []
        while (found := name(len(names))) is not None:
            names.append(found.decode("ascii"))
        pointers = libzmq.function_pointers(names)
        self.functions = (c_void_p * len(pointers))(*pointers)


@cache
def _library() -> _Library:
    with of_these_sources():
        return _Library()


class NativeRelayLoop:
    """The loop in C. Raises OSError or DatacenterError where it cannot be loaded."""

    def __init__(self, front: OwnedSocket, wake_fd: int, limits: LoopLimits, expired: bytes) -> None:
        self._library = _library()
        self._loop: int | None = self._library.new(
            self._library.functions,
            libzmq.pointer(front),
            wake_fd,
            _Limits(**dataclasses.asdict(limits)),
            expired,
            len(expired),
        )
        if self._loop is None:
            raise MemoryError("no memory for a relay's loop")

    def add(self, instance: OwnedSocket, lost: bytes) -> int | None:
        slot = int(self._library.add(self._loop, libzmq.pointer(instance), lost, len(lost)))
        if slot < -1:
            raise MemoryError("no memory for an instance of a relay")
        return None if slot < 0 else slot

    def ready(self, slot: int) -> None:
        self._library.ready(self._loop, slot)

    def retire(self, slot: int) -> None:
        self._library.retire(self._loop, slot)

    def in_flight(self, slot: int) -> int:
        return int(self._library.in_flight(self._loop, slot))

    def remove(self, slot: int) -> int:
        return int(self._library.remove(self._loop, slot))

    def run(self, timeout_ms: int) -> Outcome:
        return Outcome(self._library.run(self._loop, timeout_ms))

    def flush(self) -> None:
        self._library.flush(self._loop)

    def error(self) -> int:
        return int(self._library.error(self._loop))

    def counts(self) -> RelayCounts:
        counts = _Counts()
        self._library.counts(self._loop, counts)
        return RelayCounts(*(getattr(counts, name) for name, *_ in _Counts._fields_))

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            self._library.free(loop)


def make(
    front: OwnedSocket, wake_fd: int, limits: LoopLimits, expired: bytes, *, native: bool | None = None
) -> RelayLoop:
    """The loop in C if it can be had, else in Python; `native` insists on one of them.

    wake_fd: a descriptor that ends a run when it is readable. expired: what calls are answered whose deadline passes
    while they wait (relay_answers.py). Raises DatacenterError if `native` cannot be had.
    """
    from datacenter.broker.relay_loop_python import PythonRelayLoop

    if native is False:
        return PythonRelayLoop(front, wake_fd, limits, expired)
    try:
        return NativeRelayLoop(front, wake_fd, limits, expired)
    except (OSError, DatacenterError) as error:
        if native is None:
            return PythonRelayLoop(front, wake_fd, limits, expired)
        raise DatacenterError(
            f"The relay's native loop could not be loaded: {error}",
            "Install a C compiler and `make`, then install datacenter again (in a checkout: `make native`).",
        ) from error
