"""A plain ZeroMQ socket under asyncio (or uvloop): drained in batches, one bare frame a message.

ZMQ_FD is edge-triggered: it becomes readable when *something* happened, and says nothing more until the socket's
commands have been processed. Any send or getsockopt processes them too, so it can eat the edge of a message that
arrived meanwhile. The rule that never stalls (2 000 000 ordered echoes; without the second half it stalled within 60
000):

  1. on the edge, receive until EAGAIN, at most BATCH messages a turn, so that other tasks of the loop run;
  2. then ask for EVENTS; if there is more, come again in the next turn;
  3. after every send made outside of the drain, ask for EVENTS once before the loop sleeps.

zmq.asyncio is not used: it makes a future per receive, at a third of the throughput, and a cancelled one can drop a
message.

A LoopSocket belongs to the loop's thread: all methods raise or corrupt elsewhere. In a forked child that goes on
with the inherited loop it is deaf and dumb: even a non-blocking receive would never return there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import zmq

from datacenter.errors import ClosedError
from datacenter.sockets import fork
from datacenter.sockets.owned import OwnedSocket

log = logging.getLogger("datacenter.sockets")

BATCH: Final = 200

_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)


class LoopSocket:
    """`on_message(routing_id, frame)` is called for every message; routing_id is b"" except on a ROUTER.

    `on_writable()` is called once after a send was refused (it returned False) and there may be room again.
    `on_malformed(routing_id)` is called for a message of another number of frames; its frames are dropped.
    The callbacks run in the loop's thread and must not block; what they raise is logged and the next message goes on.
    """

    def __init__(
        self,
        owned: OwnedSocket,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[bytes, bytes], None],
        *,
        on_writable: Callable[[], None] | None = None,
        on_malformed: Callable[[bytes], None] | None = None,
    ) -> None:
        self.owned = owned
        self._epoch = fork.current()
        self.loop = loop
        self.closed = False
        self.malformed = 0
        self._raw = owned.raw
        # The methods of the C class: the Python ones above them check flags that are not used here, at 0.3 µs a call.
        self._send: Callable[[bytes, int], object] = super(zmq.Socket, owned.raw).send
        self._get: Callable[[int], Any] = super(zmq.Socket, owned.raw).get
        self._routed = owned.raw.getsockopt(zmq.TYPE) == zmq.ROUTER
        self._on_message = on_message
        self._on_writable = on_writable
        self._on_malformed = on_malformed
        self._scheduled = False
        self._wants_room = False
        self._fd = int(owned.raw.getsockopt(zmq.FD))
        loop.add_reader(self._fd, self._drain)
        self._come_again()

    def send(self, frame: bytes) -> bool:
        """Sends one message; False if there is no room (or no connection), then nothing was sent and `on_writable`
        follows.
        """
        if self.closed:
            raise ClosedError(f"{self.owned.owner} is closed")
        if not self._epoch[0]:
            fork.check(self._epoch, self.owned.owner)
        try:
            self._send(frame, _NOBLOCK)
        except zmq.Again:
            self._wants_room = True
            self._come_again()
            return False
        if not self._scheduled:
            self._come_again()
        return True

    def send_to(self, routing_id: bytes, frame: bytes) -> bool | None:
        """Sends one message to one peer of a ROUTER: True sent, False no room at that peer now, None that peer is gone.

        Needs ROUTER_MANDATORY, without which libzmq drops in silence.
        """
        if self.closed or not self._epoch[0]:
            return None
        try:
            self._send(routing_id, _MORE)
            self._send(frame, _NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return None
            raise
        finally:
            if not self._scheduled:  # a refused send has processed commands as well
                self._come_again()
        return True

    def close(self) -> None:
        """Stops reading, then closes the socket in its owner's order. Idempotent; bounded. In a forked child nothing is
        closed: the loop's epoll is shared with the parent.
        """
        if self.closed:
            return
        self.closed = True
        if fork.ended(self._epoch):
            return
        if not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
        self.owned.close()

    def _come_again(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._recheck)

    def _recheck(self) -> None:
        self._scheduled = False
        if not self.closed and self._epoch[0]:
            self._look_again()

    def _look_again(self) -> None:
        try:
            events = self._get(zmq.EVENTS)
        except zmq.ZMQError as error:
            self._context_ended(error)
            return
        if events & _POLLIN:
            self._drain()
        if self._wants_room and events & _POLLOUT and not self.closed:
            self._wants_room = False
            if self._on_writable is not None:
                self._on_writable()

    def _drain(self) -> None:
        if self.closed or not self._epoch[0]:
            return
        receive, more, routed, on_message = self._raw.recv, int(zmq.RCVMORE), self._routed, self._on_message
        option = self._get
        routing_id = b""
        for _ in range(BATCH):
            try:
                if routed:
                    routing_id = receive(_NOBLOCK)
                frame = receive(_NOBLOCK)
            except zmq.Again:
                break
            except zmq.ZMQError as error:
                self._context_ended(error)
                return
            try:
                if option(more):
                    self._drop_rest(routing_id)
                else:
                    on_message(routing_id, frame)
            except Exception:
                log.exception("%s: a message could not be handled", self.owned.owner)
            if self._ended():
                return
        # The drain has processed commands: ask for what arrived meanwhile before the loop sleeps.
        self._come_again()

    def _context_ended(self, error: zmq.ZMQError) -> None:
        """ETERM: the context ended before this socket did (at exit, for objects that nobody closed)."""
        log.debug("%s: %s", self.owned.owner, error)
        self.close()

    def _ended(self) -> bool:
        # By a callback, or this is a child that it forked. A method, because mypy believes what it saw at the top.
        return self.closed or not self._epoch[0]

    def _drop_rest(self, routing_id: bytes) -> None:
        while self._raw.getsockopt(zmq.RCVMORE):
            self._raw.recv(_NOBLOCK)
        self.malformed += 1
        if self._on_malformed is not None:
            self._on_malformed(routing_id)
