"""One end of a pipe between two processes of a family, in an event loop.

A pair of connected unix sockets, because both sides speak. It has no name, so nobody else can connect to it, and who
holds the other end is known: one process. When that one ends, however it ends, the kernel says so: `on_end`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec

from datacenter.errors import ProtocolError
from datacenter.prefork import messages
from datacenter.prefork.framing import Unframer, framed
from datacenter.sockets import fork
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter.prefork")
READ_BYTES: Final = 256 * 1024
#: A process that has not read so much of what it was told does not read at all: its pipe is closed, as if it had ended.
MAX_UNSENT_BYTES: Final = 64 * 1024 * 1024


class Pipe:
    """Sends messages and calls `on_message(message)`; `on_end()` once, when the other side has closed or died.

    Owns `end`, which is in `ledger` under `owner` until `close`. One thread: that of the running loop. Not for use
    after a fork.
    """

    def __init__(
        self,
        end: socket.socket,
        decoder: msgspec.msgpack.Decoder[Any],
        on_message: Callable[[Any], None],
        on_end: Callable[[], None],
        *,
        ledger: Ledger,
        owner: str,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = end
        self._decoder = decoder
        self._on_message = on_message
        self._on_end = on_end
        self._ledger = ledger
        self._owner = owner
        self._unframer = Unframer()
        self._unsent = bytearray()
        self._writing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.closed = False
        end.setblocking(False)
        with fork.still():
            ledger.register(end.fileno(), "unix", owner)  # so a child that the user forks does not keep it
        self._loop.add_reader(end.fileno(), self._readable)

    def send(self, message: Any) -> None:
        """Sends it, as soon as there is room. To one that has ended: nothing."""
        if self.closed:
            return
        self._unsent += framed(messages.encode(message))
        if not self._writing:
            self._write()
        if len(self._unsent) > MAX_UNSENT_BYTES:
            log.error("%s does not read what it is told; its pipe is closed", self._owner)
            self._ended()

    async def flush(self, deadline_s: float) -> None:
        """Waits until all is sent, or the other side has gone, or `deadline_s`."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), deadline_s)

    def close(self) -> None:
        """Idempotent. `on_end` is not called any more."""
        if self.closed:
            return
        self.closed = True
        self._idle.set()
        self._loop.remove_reader(self._end.fileno())
        if self._writing:
            self._loop.remove_writer(self._end.fileno())
        with fork.still():
            self._ledger.forget(self._end.fileno())
            self._end.close()

    def __repr__(self) -> str:
        return f"<Pipe {self._owner}, {'closed' if self.closed else f'{len(self._unsent)} bytes unsent'}>"

    def read_rest(self) -> None:
        """Takes what a process that has ended has said before; then `on_end`, unless it has left its end to another."""
        while not self.closed and self._readable():
            pass

    def _readable(self) -> bool:
        """Whether there was something."""
        try:
            piece = self._end.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # ECONNRESET: it died with something unread
            piece = b""
        if not piece:
            self._ended()
            return False
        try:
            for data in self._unframer.feed(piece):
                self._on_message(messages.decoded(self._decoder, data))
                if self.closed:
                    return False
        except ProtocolError as error:
            log.error("%s: %s", self._owner, error.message)
            self._ended()
        return True

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._end.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._idle.clear()
                self._loop.add_writer(self._end.fileno(), self._write)
            return
        except OSError:  # nobody reads any more; what it said before it ended is still to be read
            self._unsent.clear()
        if self._writing:
            self._writing = False
            self._idle.set()
            self._loop.remove_writer(self._end.fileno())

    def _ended(self) -> None:
        if not self.closed:
            self.close()
            self._on_end()
