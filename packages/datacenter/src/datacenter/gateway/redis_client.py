"""A client of sharded Redis: its requests are taken apart, sent where their keys belong, and answered in their order.

It is read no further while it has `max_pipeline` requests in flight, or does not take its replies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, cast

from datacenter.gateway.connections import Connections
from datacenter.gateway.options import GatewayOptions
from datacenter.gateway.redis_requests import Request, RequestReader
from datacenter.gateway.redis_shards import RedisShards
from datacenter.gateway.tunnel import CLIENT

#: so long may a client go on to send after all was said, and none of it is looked at
LAST_WORDS_S: Final = 1.0
_UNASKED: Final = b"-ERR Protocol error: "
_REFUSAL: Final = Request((), b"")


class RedisClient(asyncio.Protocol):
    """See the module. `ended(client)` is called once, when its connection is gone."""

    def __init__(
        self,
        shards: RedisShards,
        options: GatewayOptions,
        connections: Connections,
        ended: Callable[[RedisClient], None],
    ) -> None:
        self._shards = shards
        self._connections = connections
        self._number = -1
        self._options = options
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._requests = RequestReader(options.max_redis_bytes)
        self._asked = 0  # tickets of requests: they are counted, and replied to in this order
        self._replied = 0
        self._replies: dict[int, bytes] = {}  # by ticket, until those before it have been sent
        self._backlog: deque[Request] = deque()  # read, beyond max_pipeline
        self._slow = False  # does not take its replies
        self._leaving = False
        self._asked_all = False
        self._said_all = False  # our half has ended
        self._last_chance = False  # it leaves once it has asked something
        self._loop = asyncio.get_running_loop()
        self._flushing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._transport = transport
        self._number = self._connections.adopt(transport, CLIENT)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._connections.forget(self._number)
        self._replies.clear()
        self._backlog.clear()
        self._ended(self)

    def data_received(self, data: bytes) -> None:
        if self._leaving:  # what comes after QUIT is not looked at
            return
        self._backlog.extend(self._requests.feed(data))
        if self._requests.problem:  # what was asked before is answered; then this, and the end
            self._backlog.append(_REFUSAL)
            if self._transport is not None:
                self._transport.pause_reading()
        self._go_on()
        if self._last_chance and self._asked:
            self.leave_when_answered()

    def eof_received(self) -> bool:
        """It asks no more; what it asked is answered, and then the connection ends."""
        if self._said_all:
            return False
        self._asked_all = self._leaving = True
        self._flush()
        return True

    def pause_writing(self) -> None:
        self._slow = True
        self._pace()

    def resume_writing(self) -> None:
        self._slow = False
        self._go_on()

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return self._asked - self._replied + len(self._backlog)

    @property
    def gone(self) -> bool:
        """Its connection has ended, or it asks no more: a client that has given up sends the same FIN."""
        return self._transport is None or self._asked_all

    def leave_when_answered(self) -> None:
        """No request of it is taken any more; what is in flight is answered, and then the connection ends. One that has
        never asked may do so once: its request is on the way, or in the kernel's queue.
        """
        if self._transport is None or (not self._asked and not self._leaving):
            self._last_chance = True
            return
        self._transport.pause_reading()
        self._leave()
        self._flush()

    def abort(self) -> None:
        """Ends the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # --- requests

    def _go_on(self) -> None:
        while self._backlog and not self._slow and not self._leaving_now():
            ticket = self._asked
            if ticket - self._replied >= self._options.max_pipeline:
                break
            self._asked += 1
            words, packed = self._backlog.popleft()
            link = self._shards.link_of(words) if words else None
            if link is not None:
                link.send(packed, self, ticket)
            elif words:
                self._ask(words, ticket)
            else:
                self.answered((ticket,), (_UNASKED + self._requests.problem.encode() + b"\r\n",))
                self._leave()
        self._pace()

    def _leaving_now(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _ask(self, words: Sequence[bytes], ticket: int) -> None:
        """A request that is not simply passed on."""
        if reply := answered_here(words):
            self.answered((ticket,), (reply,))
            if words[0].lower() == b"quit":
                self._leave()
            return
        self._shards.ask(words, self, ticket)

    def _leave(self) -> None:
        """Ends the connection once all is answered; what was asked later is not."""
        self._leaving = True
        self._backlog.clear()

    # --- replies

    def answered(self, tickets: Sequence[int], replies: Sequence[bytes]) -> None:
        """These are the replies to some of its requests; they are sent once those before them are."""
        if self._transport is not None:
            self._replies.update(zip(tickets, replies, strict=True))
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        out = []
        while (reply := self._replies.pop(self._replied, None)) is not None:
            out.append(reply)
            self._replied += 1
        if out:
            transport.write(b"".join(out))
        if self._leaving and not self.in_flight:
            self._end(transport)
        else:
            self._go_on()

    def _end(self, transport: asyncio.Transport) -> None:
        """Ends the connection so that all replies arrive. With something unread the kernel would end it by a reset,
        which takes them from a client that has not read them yet.
        """
        if self._asked_all or not transport.can_write_eof():
            transport.close()
        elif not self._said_all:
            self._said_all = True
            transport.write_eof()
            transport.resume_reading()
            self._loop.call_later(LAST_WORDS_S, transport.close)

    def _pace(self) -> None:
        """Reads while there is room."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._leaving:
            return
        if self._slow or self._backlog:
            transport.pause_reading()
        else:
            transport.resume_reading()


def answered_here(words: Sequence[bytes]) -> bytes:
    """The reply to what needs no server, b"" for everything else. Pure."""
    name = words[0].lower()
    if name == b"ping":
        return b"+PONG\r\n" if len(words) == 1 else b"$%d\r\n%s\r\n" % (len(words[1]), words[1])
    if name == b"echo" and len(words) == 2:
        return b"$%d\r\n%s\r\n" % (len(words[1]), words[1])
    if name in (b"quit", b"reset") or (name == b"select" and list(words[1:]) == [b"0"]):
        return b"+OK\r\n" if name != b"reset" else b"+RESET\r\n"
    if name == b"select":
        return b"-ERR sharded Redis has one database, 0\r\n"
    if name == b"client" and len(words) > 1 and words[1].lower() in (b"setname", b"setinfo"):
        return b"+OK\r\n"
    if name == b"hello":
        return b"-NOPROTO sharded Redis speaks RESP 2: use protocol=2\r\n"
    return b""
