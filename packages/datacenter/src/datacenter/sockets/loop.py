"""A plain ZeroMQ socket under asyncio (or uvloop): received from and sent to in batches, one bare frame a message;
on data connections several small ones (bundles.py), which nothing above this layer sees.

ZMQ_FD is edge-triggered: it becomes readable when *something* happened, and says nothing more until the socket's
commands have been processed. Any send or getsockopt processes them too, so it can eat the edge of a message that
arrived meanwhile. The rule that never stalls (2 000 000 ordered echoes; without the second half it stalled within 60
000):

  1. on the edge, receive until EAGAIN, at most MOST messages a turn, so that other tasks of the loop run; if there may
     be more, come again in the next turn;
  2. after every send, receive until EAGAIN once more before the loop sleeps.

zmq.asyncio is not used: it makes a future per receive, at a third of the throughput, and a cancelled one can drop a
message.

A LoopSocket belongs to its running loop: queue, send, send_to and close raise WrongThreadError elsewhere (close only
while the loop runs), and in a forked child ForkedError; there close does nothing.
A child that goes on with the inherited loop (loop_fork.py) is deaf and dumb: even a non-blocking receive would never
return there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Final

import zmq

from datacenter.errors import ClosedError, WrongThreadError
from datacenter.sockets import batches, fork
from datacenter.sockets.loop_fork import part_in_children
from datacenter.sockets.owned import OwnedSocket

log = logging.getLogger("datacenter.sockets")

_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)
_NOBODY: Final = repeat(b"")


class LoopSocket:
    """`on_message(routing_id, frame)` is called for every message; routing_id is b"" except on a ROUTER.

    `on_writable()` is called once after a send was refused (it returned False) and there may be room again.
    `on_malformed(routing_id)` is called for a message of another number of frames; its frames are dropped.
    bundled: frames that are queued in one turn for one peer travel together, as do those received (bundles.py).
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
        on_refused: Callable[[bytes, bytes, Any, bool], None] | None = None,
        bundled: bool = False,
        native: bool | None = None,
    ) -> None:
        owned.move_here()
        self.owned = owned
        self._epoch = fork.current()
        part_in_children(loop)
        self.loop = loop
        self.closed = False
        self.malformed = 0
        # The methods of the C class: the Python ones above them check flags that are not used here, at 0.3 µs a call.
        self._send: Callable[[bytes, int], object] = super(zmq.Socket, owned.raw).send
        self._get: Callable[[int], Any] = super(zmq.Socket, owned.raw).get
        self._batch = batches.make(owned, bundled=bundled, native=native)
        self._on_message = on_message
        self._on_writable = on_writable
        self._on_malformed = on_malformed
        self._on_refused = on_refused
        # What is queued for the end of this turn: three lists, because that is how it is sent.
        self._routing_ids: list[bytes] = []
        self._frames: list[bytes] = []
        self._tokens: list[Any] = []
        self._rest: list[tuple[bytes, bytes | None]] = []  # received, and not handed over because of a Ctrl-C
        self._scheduled = False
        self._wants_room = False
        self._fd = int(owned.raw.getsockopt(zmq.FD))
        loop.add_reader(self._fd, self._drain)
        self._come_again()

    def queue(self, frame: bytes, token: object = None, routing_id: bytes = b"") -> bool:
        """Sends one message at the end of this turn of the loop, with all the others of the turn. False if there was no
        room last time, and `on_writable` has not come since: then nothing is queued.

        What finds no room then is told to `on_refused(routing_id, frame, token, gone)`; it was not sent.
        """
        if self._wants_room:
            return False
        if self.closed:
            raise ClosedError(f"{self.owned.owner} is closed")
        if not self._epoch[0] or asyncio._get_running_loop() is not self.loop:
            self._check()
        self._frames.append(frame)
        self._tokens.append(token)
        if routing_id:
            self._routing_ids.append(routing_id)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn_ends)
        return True

    def take_back(self) -> list[Any]:
        """The tokens of what is queued: it will not be sent."""
        tokens, self._frames, self._routing_ids, self._tokens = self._tokens, [], [], []
        return tokens

    def send(self, frame: bytes) -> bool:
        """Sends one message now; False if there is no room (or no connection), then nothing was sent and `on_writable`
        follows.
        """
        if self.closed:
            raise ClosedError(f"{self.owned.owner} is closed")
        self._check()
        self._come_again()
        try:
            self._send(frame, _NOBLOCK)
        except zmq.Again:
            self._wants_room = True
            return False
        return True

    def send_to(self, routing_id: bytes, frame: bytes) -> bool | None:
        """Sends one message to one peer of a ROUTER now: True sent, False no room at that peer, None that peer is gone.

        Needs ROUTER_MANDATORY, without which libzmq drops in silence.
        """
        if self.closed or not self._epoch[0]:
            return None
        self._check()
        self._come_again()  # a refused send processes commands as well
        try:
            self._send(routing_id, _MORE)
            self._send(frame, _NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return None
            raise
        return True

    def receive_rest(self) -> None:
        """Hands over what has arrived by now, without waiting for the loop. For the end of a connection."""
        more = True
        while more and not self._ended():
            self._hand_over_rest()
            try:
                received = self._batch.receive()
            except zmq.ZMQError as error:
                self._context_ended(error)
                return
            self._hand_over(zip(received.routing_ids or _NOBODY, received.frames, strict=False))
            more = not received.all

    def close(self) -> None:
        """Sends what is queued, stops reading, then closes the socket in its owner's order. Idempotent; bounded. In a
        forked child nothing is closed: the loop's epoll is shared with the parent.
        """
        if self._ended():
            self.closed = True
            return
        if self.loop.is_running():
            self._check()
        try:
            self._flush()
        except zmq.ZMQError as error:
            log.debug("%s: %s", self.owned.owner, error)
        if self._ended():  # by a callback
            return
        self.closed = True
        if not self.loop.is_closed():
            self.loop.remove_reader(self._fd)
        self._batch.close()
        self.owned.close()

    def _check(self) -> None:
        fork.check(self._epoch, self.owned.owner)
        if asyncio._get_running_loop() is not self.loop:
            raise WrongThreadError(
                f"{self.owned.owner} was used outside of its event loop",
                "Hand over to its loop what is to be done there (call_soon_threadsafe): docs/ownership.md.",
            )

    def _come_again(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn_ends)

    def _turn_ends(self) -> None:
        self._scheduled = False
        if self._ended():
            return
        if self._frames:
            try:
                self._flush()
            except zmq.ZMQError as error:
                self._context_ended(error)
        self._drain()

    def _flush(self) -> None:
        frames, routing_ids, tokens = self._frames, self._routing_ids, self._tokens
        if not frames:
            return
        self._frames, self._routing_ids, self._tokens = [], [], []
        outcomes = self._batch.send(routing_ids, frames)
        for number, outcome in enumerate(outcomes):
            if outcome == batches.SENT:
                continue
            if outcome not in (batches.NO_ROOM, batches.GONE):
                raise zmq.ZMQError(outcome)
            if not routing_ids:
                self._wants_room = True
            if self._on_refused is not None:
                routing_id = routing_ids[number] if routing_ids else b""
                self._on_refused(routing_id, frames[number], tokens[number], outcome == batches.GONE)

    def _look_for_room(self) -> None:
        try:
            events = self._get(_EVENTS)
        except zmq.ZMQError as error:
            self._context_ended(error)
            return
        if events & _POLLOUT:
            self._wants_room = False
            if self._on_writable is not None:
                self._on_writable()
        if events & _POLLIN:  # asking has processed commands
            self._come_again()

    def _drain(self) -> None:
        if self.closed or not self._epoch[0]:
            return
        self._hand_over_rest()
        if self._ended():
            return
        try:
            received = self._batch.receive()
        except zmq.ZMQError as error:
            self._context_ended(error)
            return
        self._hand_over(zip(received.routing_ids or _NOBODY, received.frames, strict=False))
        if self._ended():
            return
        if not received.all:
            self._come_again()
        elif self._wants_room:
            self._look_for_room()

    def _hand_over_rest(self) -> None:
        rest, self._rest = self._rest, []
        if rest:
            self._hand_over(iter(rest))

    def _hand_over(self, messages: Iterator[tuple[bytes, bytes | None]]) -> None:
        on_message = self._on_message
        try:
            for routing_id, frame in messages:
                try:
                    if frame is None:
                        self._malformed(routing_id)
                    else:
                        on_message(routing_id, frame)
                except Exception:
                    log.exception("%s: a message could not be handled", self.owned.owner)
                if self.closed or not self._epoch[0]:  # by a callback
                    return
        except BaseException:  # Ctrl-C, sys.exit(): the loop may be run again
            if not self._ended():
                self._rest = list(messages)
                self._come_again()
            raise

    def _context_ended(self, error: zmq.ZMQError) -> None:
        """ETERM: the context ended before this socket did (at exit, for objects that nobody closed)."""
        log.debug("%s: %s", self.owned.owner, error)
        self.close()

    def _ended(self) -> bool:
        # By a callback, or this is a child that it forked. A method, because mypy believes what it saw at the top.
        return self.closed or not self._epoch[0]

    def _malformed(self, routing_id: bytes) -> None:
        self.malformed += 1
        if self._on_malformed is not None:
            self._on_malformed(routing_id)
