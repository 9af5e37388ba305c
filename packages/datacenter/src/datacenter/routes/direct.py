"""The direct route: one connection to each instance that a client talks to, however many services and calls share it.

A Peer is one DEALER and one connection: when the connection ends, the peer ends with it and the next one starts
empty, so no message of an old connection is ever delivered late and no count is carried over. Replies that have
arrived by then still count: that is why it is not IMMEDIATE, with which libzmq drops them (socket_base.cpp: hiccuped).
Calls are only handed to a peer that has shaken hands; until then they wait at their service's route, where they can
still go to another instance (they were never sent).

Everything here runs in the thread of the client's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import zmq

from datacenter import options, wire
from datacenter.backoff import Backoff
from datacenter.errors import DatacenterError, LostError, ProtocolError
from datacenter.sockets.context import SocketContext
from datacenter.sockets.events import MonitorEvent
from datacenter.sockets.loop import LoopSocket

if TYPE_CHECKING:
    from datacenter.calls import Pending

log = logging.getLogger("datacenter.client")

PeerState = Literal["connecting", "ready", "ended"]
_turns = itertools.count(1)


class Peer:
    """One connection to one endpoint. `pending`: calls that were sent on it and are not answered yet, by id, oldest
    first.

    `on_change(peer, reason)` is called when it becomes ready and when it ends, `on_unsent(calls)` with what it was
    handed and has not sent.
    """

    __slots__ = (
        "_loop",
        "_on_change",
        "_on_reply",
        "_on_room",
        "_on_unsent",
        "endpoint",
        "pending",
        "reconnect",
        "refused",
        "state",
        "stream",
        "turn",
    )

    def __init__(
        self,
        endpoint: str,
        context: SocketContext,
        loop: asyncio.AbstractEventLoop,
        *,
        backoff: Backoff,
        reconnect_min_ms: int,
        reconnect_max_ms: int,
        insecure: bool,
        on_change: Callable[[Peer, str], None],
        on_reply: Callable[[Peer, wire.FromService, Pending], None],
        on_room: Callable[[], None],
        on_unsent: Callable[[list[Pending]], None],
    ) -> None:
        self.endpoint = endpoint
        self.state: PeerState = "connecting"
        self.pending: dict[int, Pending] = {}
        self.turn = 0  # when it was last given a call: see least_busy
        self.refused = False  # a send found no room; until `on_room` nobody should try again
        self.reconnect = backoff
        self._loop = loop
        self._on_change = on_change
        self._on_reply = on_reply
        self._on_room = on_room
        self._on_unsent = on_unsent
        owned = context.socket(
            zmq.DEALER,
            owner=f"client peer {endpoint}",
            on_event=self._on_event,
            receive_high_water=options.RECEIVE_ALL,
            reconnect_min_ms=reconnect_min_ms,
            reconnect_max_ms=reconnect_max_ms,
        )
        try:
            owned.connect(endpoint, insecure=insecure, resolve=False)  # the loop must not wait
        except BaseException:
            owned.close()
            raise
        self.stream = LoopSocket(
            owned,
            loop,
            self._on_message,
            on_writable=self._writable,
            on_refused=self._was_refused,
            on_malformed=lambda _: self.end("malformed reply"),
            bundled=True,
        )

    def send(self, pending: Pending, frame: bytes) -> bool:
        """Hands a call to the connection; False if it has no room now (then it was not sent)."""
        if self.refused or not self.stream.queue(frame, pending):
            self.refused = True
            return False
        self.pending[pending.id] = pending
        self.turn = next(_turns)
        return True

    def end(self, reason: str) -> None:
        """Closes the connection; what was sent and not answered is lost, with a typed error. Idempotent."""
        if self.state == "ended":
            return
        self.state = "ended"
        unsent = self.stream.take_back()
        self.stream.close()
        for pending in unsent:
            self.pending.pop(pending.id, None)
        lost, self.pending = self.pending, {}
        self._on_change(self, reason)
        self._on_unsent(unsent)
        for pending in lost.values():
            pending.lost(
                LostError(
                    f"the connection to {self.endpoint} ended ({reason}) before {pending.target} was answered",
                    "It may have been executed. Declare the method idempotent to have such calls repeated.",
                )
            )

    def __repr__(self) -> str:
        return f"<Peer {self.endpoint} {self.state}, {len(self.pending)} in flight>"

    def _writable(self) -> None:
        self.refused = False
        self._on_room()

    def _was_refused(self, _routing_id: bytes, _frame: bytes, pending: Pending, _gone: bool) -> None:
        """There was no room for it when its turn came: it was not sent."""
        self.refused = True
        if self.pending.pop(pending.id, None) is not None:
            self._on_unsent([pending])

    def _on_message(self, _routing_id: bytes, frame: bytes) -> None:
        try:
            reply = wire.decode_reply(frame)
        except ProtocolError as error:
            log.error("%s is not a service of this protocol: %s", self.endpoint, error)
            self.end("what answers there is not a service")
            return
        pending = self.pending.pop(reply.id, None)
        if pending is not None:  # else its deadline has passed, and it was answered then
            self._on_reply(self, reply, pending)

    def _on_event(self, event: MonitorEvent) -> None:
        # In the hub's thread; the loop may be closed already.
        if event.name in ("HANDSHAKE_SUCCEEDED", "DISCONNECTED"):
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._connection_event, event.name)

    def _connection_event(self, name: str) -> None:
        if self.state == "ended":
            return
        if name == "DISCONNECTED":
            self.stream.receive_rest()
            self.end("the connection ended")
        elif self.state == "connecting":
            self.state = "ready"
            self.reconnect.reset()
            self._on_change(self, "connected")


class Peers:
    """The peers of one client, by endpoint. Remakes a peer that ended, after a pause, while anybody wants its
    endpoint.
    """

    def __init__(
        self, make: Callable[[str, Backoff], Peer], loop: asyncio.AbstractEventLoop, backoff: Callable[[], Backoff]
    ):
        self._make = make
        self._loop = loop
        self._new_backoff = backoff
        self._peers: dict[str, Peer] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wanted: dict[str, int] = {}
        #: endpoint -> why it could not even be tried last time
        self.problems: dict[str, DatacenterError] = {}

    def get(self, endpoint: str) -> Peer | None:
        return self._peers.get(endpoint)

    def all(self) -> tuple[Peer, ...]:
        return tuple(self._peers.values())

    def want(self, endpoint: str) -> None:
        """One more route wants this endpoint connected."""
        self._wanted[endpoint] = self._wanted.get(endpoint, 0) + 1
        if endpoint not in self._peers and endpoint not in self._timers:
            self._open(endpoint)

    def unwant(self, endpoint: str) -> None:
        """One route less. The peer of an endpoint that nobody wants ends once its calls are answered."""
        left = self._wanted.get(endpoint, 0) - 1
        if left > 0:
            self._wanted[endpoint] = left
            return
        self._wanted.pop(endpoint, None)
        timer = self._timers.pop(endpoint, None)
        if timer is not None:
            timer.cancel()
        self._backoffs.pop(endpoint, None)
        self.problems.pop(endpoint, None)
        self.end_if_idle(endpoint)

    def end_if_idle(self, endpoint: str) -> None:
        """Ends the peer of an endpoint that nobody wants, if nothing waits for an answer on it."""
        peer = self._peers.get(endpoint)
        if peer is not None and endpoint not in self._wanted and not peer.pending:
            peer.end("no longer needed")

    def ended(self, peer: Peer) -> None:
        """To be told when a peer has ended: remakes it after a pause if it is still wanted."""
        if self._peers.get(peer.endpoint) is peer:
            del self._peers[peer.endpoint]
        if peer.endpoint in self._wanted and peer.endpoint not in self._timers:
            self._timers[peer.endpoint] = self._loop.call_later(peer.reconnect.next(), self._open, peer.endpoint)

    def close(self) -> None:
        self._wanted.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for peer in self.all():
            peer.end("the client was closed")

    def _open(self, endpoint: str) -> None:
        self._timers.pop(endpoint, None)
        backoff = self._backoffs.setdefault(endpoint, self._new_backoff())
        try:
            self._peers[endpoint] = self._make(endpoint, backoff)
            self.problems.pop(endpoint, None)
        except DatacenterError as error:  # the descriptor limit (it may pass), or an address that this host cannot use
            log.warning("no connection to %s: %s", endpoint, error)
            self.problems[endpoint] = error
            self._timers[endpoint] = self._loop.call_later(backoff.next(), self._open, endpoint)


def least_busy(peers: list[Peer]) -> Peer | None:
    """The ready peer with the fewest calls in flight that has room; equals take turns. None if there is none."""
    best: Any = None
    fewest = 0
    for peer in peers:
        if peer.state == "ready" and not peer.refused:
            count = len(peer.pending)
            if best is None or count < fewest or (count == fewest and peer.turn < best.turn):
                best, fewest = peer, count
    return best  # type: ignore[no-any-return]
