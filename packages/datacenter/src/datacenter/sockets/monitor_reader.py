"""The reading end of one socket's monitor: drained to EAGAIN under its lock, by the hub or by whoever closes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import zmq

from datacenter.sockets import admission, peer_guard
from datacenter.sockets.events import MonitorEvent, parse
from datacenter.sockets.ledger import Ledger


class MonitorReader:
    """The reading end of one socket's monitor, and what is known from it. Made by SocketContext, drained by the hub.

    `lock` guards `socket` (the PAIR) and `closed`. `monitored` is the socket that is watched; only its owner's thread
    uses it.
    """

    def __init__(
        self,
        monitored: zmq.Socket[bytes],
        socket: zmq.Socket[bytes],
        *,
        owner: str,
        generation: int,
        ledger: Ledger,
        account: str,
        on_event: Callable[[MonitorEvent], object] | None,
        debug: bool,
    ) -> None:
        self.monitored = monitored
        self.socket = socket
        self.fd = int(socket.getsockopt(zmq.FD))
        self.owner = owner
        self.generation = generation
        self.ledger = ledger
        self.account = account
        self.on_event = on_event
        self.debug = debug
        self.lock = threading.RLock()
        self.closed = False
        self.events = 0
        self.last: MonitorEvent | None = None
        self.backlog = 0  # drained since the last time that nothing was left

    def drain(self, most: int) -> tuple[list[MonitorEvent], bool]:
        """Read up to `most` events, with the lock held. Returns them, and whether more may wait."""
        found: list[MonitorEvent] = []
        receive = self.socket.recv
        now = time.monotonic()
        try:
            while len(found) < most:
                head = receive(zmq.DONTWAIT)
                # The parts of a message arrive together: the second receive cannot fail for want of data.
                found.append(parse(head, receive(zmq.DONTWAIT), self.owner, self.generation, now))
        except zmq.Again:
            # Processing commands in recv may have eaten the edge of what arrived meanwhile.
            return found, bool(int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
        return found, True

    def take(self, event: MonitorEvent) -> None:
        """Note an event: for the owner's state, and in the ledger."""
        self.events += 1
        self.last = event
        if event.name in ("CONNECTED", "ACCEPTED"):
            # The number may be closed, or reused, since: the ledger only takes what is libzmq's.
            self.ledger.assign(event.value, self.account)
        elif event.name == "LISTENING":
            if event.endpoint.startswith("ipc:"):  # libzmq made it: a TCP one is known before it listens
                peer_guard.of_process().watch(event.value)
            admission.of_process().note(event)
