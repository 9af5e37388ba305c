"""Replies that find no room at their client (it does not read): kept in order, client by client, within bounds.

At most `max_per_client` of one client and `max_all` in all are kept; beyond it the reply is dropped, counted and
logged, and its call ends by its deadline. Long before, at `busy_bytes` of one client, `full` says that nothing more
should be executed for it. A client that is gone loses its part. One that does not read holds up no other.

In the thread of the serving loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from datacenter.sockets.loop import LoopSocket

log = logging.getLogger("datacenter.service")
RETRY_S: Final = 0.01


class Outbox:
    """Between a server and its ROUTER. `waiting` and `dropped` are counts."""

    def __init__(
        self, stream: LoopSocket, loop: asyncio.AbstractEventLoop, *, max_per_client: int, max_all: int, busy_bytes: int
    ) -> None:
        self.waiting = 0
        self.dropped = 0
        self._stream = stream
        self._loop = loop
        self._max_per_client = max_per_client
        self._max_all = max_all
        self._busy_bytes = busy_bytes
        self._replies: dict[bytes, deque[bytes]] = {}
        self._bytes: dict[bytes, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def send(self, routing_id: bytes, frame: bytes) -> None:
        """Sends a reply at the end of this turn of the loop, or as soon as its client has room."""
        if routing_id in self._replies:
            self.keep(routing_id, frame)
        elif not self._stream.closed:
            self._stream.queue(frame, None, routing_id)

    def close(self) -> None:
        """Sends nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._replies.clear()
        self._bytes.clear()

    def full(self, routing_id: bytes) -> bool:
        """Whether so much waits for this client that nothing more should be executed for it."""
        return self._bytes.get(routing_id, 0) > self._busy_bytes

    def keep(self, routing_id: bytes, frame: bytes) -> None:
        """Takes a reply that found no room at its client."""
        replies = self._replies.setdefault(routing_id, deque())
        if len(replies) >= self._max_per_client or self.waiting >= self._max_all:
            self.dropped += 1
            if self.dropped in (1, 100, 10_000):
                log.warning("%d replies dropped: a client does not read them", self.dropped)
            if not replies:
                del self._replies[routing_id]
            return
        replies.append(frame)
        self.waiting += 1
        self._bytes[routing_id] = self._bytes.get(routing_id, 0) + len(frame)
        if self._timer is None:
            self._timer = self._loop.call_later(RETRY_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        for routing_id, replies in tuple(self._replies.items()):
            while replies:
                sent = self._stream.send_to(routing_id, replies[0])
                if sent is False:
                    break
                if sent is None:
                    self.waiting -= len(replies)
                    replies.clear()
                else:
                    self.waiting -= 1
                    self._bytes[routing_id] -= len(replies.popleft())
            if not replies:
                del self._replies[routing_id]
                del self._bytes[routing_id]
        if self._replies:
            self._timer = self._loop.call_later(RETRY_S, self._flush)
