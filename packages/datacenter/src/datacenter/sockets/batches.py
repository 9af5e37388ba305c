"""Many messages a call: what a LoopSocket receives and sends in one turn of its loop. In C where it was built
(native/batch.h says why), else message by message through pyzmq, with the same outcome.

A batch belongs to the thread that uses its socket.
"""

from __future__ import annotations

import ctypes
import errno
import functools
from array import array
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int, c_int32, c_uint, c_uint32, c_void_p
from itertools import accumulate, islice, takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import zmq

from datacenter.errors import DatacenterError
from datacenter.sockets import bundles, libzmq
from datacenter.sockets.native_library import of_these_sources
from datacenter.sockets.owned import OwnedSocket

LIBRARY: Final = Path(__file__).parent / "native" / "libbatch.so"
MOST: Final = 200

#: outcomes of `send`
SENT: Final = 0
NO_ROOM: Final = errno.EAGAIN
GONE: Final = errno.EHOSTUNREACH


class Received(NamedTuple):
    """Messages, in order: `routing_ids` (empty unless routed) and `frames`; a frame is None for a message of another
    number of frames, which was dropped. `all`: there was nothing more.
    """

    routing_ids: Sequence[bytes]
    frames: Sequence[bytes | None]
    all: bool


class Batch(Protocol):
    def receive(self) -> Received:
        """At most MOST messages, and what else the last one's bundle has; never waits. Raises zmq.ZMQError (ETERM)."""

    def send(self, routing_ids: Sequence[bytes], frames: Sequence[bytes]) -> Sequence[int]:
        """Sends what finds room; never waits. The outcome of each message, or () if all were sent."""

    def close(self) -> None:
        """To be called before the socket is closed. Idempotent."""


class _Shared(ctypes.Structure):
    """struct batch of native/batch.h"""

    _fields_ = [
        ("bytes", c_void_p),
        ("size", c_uint32),
        ("all", c_int32),
        ("malformed", c_int32),
        ("spans", c_uint32 * (3 * (MOST + bundles.FRAMES - 1))),
    ]


class _Library:
    """The functions of libbatch.so. They keep the GIL: none of them waits."""

    def __init__(self) -> None:
        library = ctypes.PyDLL(str(LIBRARY))
        self.new = library.batch_make
        self.new.argtypes, self.new.restype = [POINTER(c_void_p), c_void_p, c_int, c_int], c_void_p
        self.free = library.batch_free
        self.free.argtypes, self.free.restype = [c_void_p], None
        self.receive = library.batch_receive
        self.receive.argtypes, self.receive.restype = [c_void_p], c_int
        self.send = library.batch_send
        self.send.argtypes, self.send.restype = [c_void_p, c_char_p, c_void_p, c_int, c_void_p], c_int
        name = library.batch_function_name
        name.argtypes, name.restype = [c_uint], c_char_p
        names: list[str] = []
        while (found := name(len(names))) is not None:
            names.append(found.decode("ascii"))
        pointers = libzmq.function_pointers(names)
        self.functions = (c_void_p * len(pointers))(*pointers)


@functools.cache
def _library() -> _Library:
    with of_these_sources():
        return _Library()


class NativeBatch:
    """In C. Raises OSError or DatacenterError where it cannot be loaded."""

    def __init__(self, owned: OwnedSocket, *, routed: bool, bundled: bool) -> None:
        self._library = library = _library()
        self._owned = owned  # as long as there is a batch, its socket is not collected
        self._routed = routed
        self._batch: int | None = library.new(library.functions, libzmq.pointer(owned), routed, bundled)
        if self._batch is None:
            raise MemoryError("no memory for a batch")
        self._shared = shared = _Shared.from_address(self._batch)
        self._spans = memoryview(shared.spans).cast("B").cast("I")
        self._outcomes = array("i", bytes(4 * MOST))

    def receive(self) -> Received:
        count = self._library.receive(self._batch)
        shared = self._shared
        if count <= 0:
            if count < 0:
                raise zmq.ZMQError(-count)
            return _NOTHING
        data = ctypes.string_at(shared.bytes, shared.size)
        spans = self._spans[: 3 * count].tolist()
        begins, ends = spans[1::3], spans[2::3]
        routing_ids: Sequence[bytes] = ()
        if self._routed:
            routing_ids = [data[begin:end] for begin, end in zip(spans[0::3], begins, strict=True)]
        frames: list[bytes | None] = [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
        if shared.malformed:
            frames = [None if end == _MALFORMED else frame for frame, end in zip(frames, ends, strict=True)]
        return Received(routing_ids, frames, shared.all != 0)

    def send(self, routing_ids: Sequence[bytes], frames: Sequence[bytes]) -> Sequence[int]:
        count = len(frames)
        if count > MOST:
            outcomes: list[int] = []
            for first in range(0, count, MOST):
                part = slice(first, first + MOST)
                outcomes += self.send(routing_ids[part], frames[part]) or [SENT] * len(frames[part])
            return outcomes
        parts = [part for pair in zip(routing_ids, frames, strict=True) for part in pair] if self._routed else frames
        ends = array("I", accumulate(map(len, parts)))
        outcomes_at = self._outcomes.buffer_info()[0]
        if self._library.send(self._batch, b"".join(parts), ends.buffer_info()[0], count, outcomes_at):
            return self._outcomes[:count].tolist()
        return ()

    def close(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            self._spans.release()
            self._library.free(batch)

    def __del__(self) -> None:
        if hasattr(self, "_batch"):
            self.close()


class PlainBatch:
    """Through pyzmq, message by message."""

    def __init__(self, owned: OwnedSocket, *, routed: bool, bundled: bool) -> None:
        # The methods of the C class: the Python ones above them check flags that are not used here, at 0.3 µs a call.
        self._recv: Any = super(zmq.Socket, owned.raw).recv
        self._send: Any = super(zmq.Socket, owned.raw).send
        self._get: Any = super(zmq.Socket, owned.raw).get
        self._routed = routed
        self._bundled = bundled

    def receive(self) -> Received:
        routing_ids: list[bytes] = []
        frames: list[bytes | None] = []
        while len(frames) < MOST:
            try:
                routing_id = self._recv(_NOBLOCK) if self._routed else b""
                frame: bytes = self._recv(_NOBLOCK)
            except zmq.Again:
                return Received(routing_ids, frames, all=True)
            found: Sequence[bytes | None] = (frame,)
            if self._get(_RCVMORE):
                while self._get(_RCVMORE):
                    self._recv(_NOBLOCK)
                found = (None,)
            elif self._bundled:
                found = bundles.split(frame) or (None,)
            frames += found
            if self._routed:
                routing_ids += [routing_id] * len(found)
        return Received(routing_ids, frames, all=False)

    def send(self, routing_ids: Sequence[bytes], frames: Sequence[bytes]) -> Sequence[int]:
        outcomes: list[int] = []
        outcome: int = SENT
        while (first := len(outcomes)) < len(frames):
            count = self._together(routing_ids, frames, first)
            if self._routed or outcome == SENT:
                try:
                    if self._routed:
                        self._send(routing_ids[first], _MORE)
                    self._send(bundles.join(frames[first : first + count]), _NOBLOCK)
                    outcome = SENT
                except zmq.ZMQError as error:
                    outcome = error.errno or errno.EIO
            outcomes += [outcome] * count
        return outcomes if any(outcomes) else ()

    def _together(self, routing_ids: Sequence[bytes], frames: Sequence[bytes], first: int) -> int:
        """How many of the messages from `first` on travel as one."""
        if not self._bundled:
            return 1
        last = len(frames)
        if self._routed:
            same = takewhile(routing_ids[first].__eq__, islice(routing_ids, first, first + bundles.FRAMES))
            last = first + sum(1 for _ in same)
            known = takewhile(bundles.may, islice(frames, first, last))
            last = first + (sum(1 for _ in known) or 1)
        return bundles.together(frames, first, last)

    def close(self) -> None:
        pass


_NOTHING: Final = Received((), (), all=True)
_MALFORMED: Final = 0xFFFF_FFFF
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)
_RCVMORE: Final = int(zmq.RCVMORE)


def make(owned: OwnedSocket, *, bundled: bool = False, native: bool | None = None) -> Batch:
    """The batch of a socket: in C if that can be had, else in Python; `native` insists on one of them.

    bundled: small frames travel together (bundles.py), for connections whose other end knows that too.
    """
    routed = owned.raw.getsockopt(zmq.TYPE) == zmq.ROUTER
    if native is not False:
        try:
            return NativeBatch(owned, routed=routed, bundled=bundled)
        except (OSError, DatacenterError):
            if native:
                raise
    return PlainBatch(owned, routed=routed, bundled=bundled)
