"""A client of sharded Redis: its requests are taken apart, sent where their keys belong, and answered in their order.

It is read no further while it has `max_pipeline` requests in flight, or does not take its replies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import hiredis

from datacenter.gateway.connections import Connections
from datacenter.gateway.options import GatewayOptions
from datacenter.gateway.redis_commands import Merge, NotForShardsError, Part, merged
from datacenter.gateway.redis_link import Answer
from datacenter.gateway.tunnel import CLIENT

_UNASKED = b"-ERR Protocol error: "


class Shards(Protocol):
    """What a client needs of the servers behind the gateway."""

    def parts(self, words: Sequence[bytes]) -> tuple[list[Part], Merge | None]:
        """Where a command is to go. Raises NotForShardsError."""

    def send(self, server: str, request: bytes, answer: Answer) -> None:
        """Sends to one server; `answer` is called once."""


class _Request:
    """One request, until its reply can be sent: when those before it have been."""

    __slots__ = ("merge", "missing", "parts", "replies", "reply")

    def __init__(self, parts: list[Part], merge: Merge | None) -> None:
        self.parts = parts
        self.merge = merge
        self.replies: list[bytes] = [b""] * len(parts)
        self.missing = len(parts)
        self.reply = b""

    def answered(self, which: int, reply: bytes) -> bool:
        """True once it is complete."""
        self.replies[which] = reply
        self.missing -= 1
        if self.missing == 0:
            self.reply = reply if self.merge is None else merged(self.merge, self.parts, self.replies)
        return self.missing == 0


class RedisClient(asyncio.Protocol):
    """See the module. `ended(client)` is called once, when its connection is gone."""

    def __init__(
        self, shards: Shards, options: GatewayOptions, connections: Connections, ended: Callable[[RedisClient], None]
    ) -> None:
        self._shards = shards
        self._connections = connections
        self._number = -1
        self._options = options
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._since_request = 0  # bytes of a request that is not complete
        self._requests: deque[_Request] = deque()
        self._backlog: deque[list[bytes]] = deque()  # read, beyond max_pipeline
        self._slow = False  # does not take its replies
        self._leaving = False
        self._problem = ""  # why it is refused
        self._loop = asyncio.get_running_loop()
        self._flushing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._transport = transport
        self._number = self._connections.adopt(transport, CLIENT)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._connections.forget(self._number)
        self._requests.clear()
        self._backlog.clear()
        self._ended(self)

    def data_received(self, data: bytes) -> None:
        if self._since_request == 0 and data[:1] != b"*" and not self._reader.has_data():
            self._inline(data)
        else:
            self._framed(data)
        self._go_on()

    def eof_received(self) -> bool:
        """It asks no more; what it asked is answered, and then the connection ends."""
        self._leaving = True
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
        return len(self._requests) + len(self._backlog)

    def leave_when_answered(self) -> None:
        """No request of it is taken any more; what is in flight is answered, and then the connection ends."""
        if self._transport is not None:
            self._transport.pause_reading()
        self._leave()
        self._flush()

    def abort(self) -> None:
        """Ends the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # --- requests

    def _inline(self, data: bytes) -> None:
        """A request typed by hand: words on a line."""
        lines = data.split(b"\n")
        if lines[-1]:
            self._refuse("an inline request must come in one piece, with its line end")
            return
        self._backlog.extend(words for line in lines[:-1] if (words := line.split()))

    def _framed(self, data: bytes) -> None:
        self._reader.feed(data)
        self._since_request += len(data)
        try:
            while (words := self._reader.gets()) is not False:
                self._since_request = 0
                if not isinstance(words, list) or not all(isinstance(word, bytes) for word in words):
                    self._refuse("expected a list of strings")
                    return
                if words:
                    self._backlog.append(words)
        except hiredis.ProtocolError as error:
            self._refuse(str(error))
        if self._since_request > self._options.max_redis_bytes:
            self._refuse(f"a request of more than {self._options.max_redis_bytes} bytes")

    def _refuse(self, problem: str) -> None:
        """What was asked before is answered; then this, and the end."""
        self._problem = problem
        self._backlog.append([])
        if self._transport is not None:
            self._transport.pause_reading()

    def _go_on(self) -> None:
        while self._backlog and not self._slow and not self._leaving_now():
            if len(self._requests) >= self._options.max_pipeline:
                break
            words = self._backlog.popleft()
            if words:
                self._ask(words)
                continue
            self._reply(_UNASKED + self._problem.encode() + b"\r\n")
            self._leave()
        self._pace()

    def _leaving_now(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _ask(self, words: list[bytes]) -> None:
        try:
            reply = answered_here(words)
            parts, merge = ([], None) if reply else self._shards.parts(words)
        except NotForShardsError as error:
            reply, parts, merge = f"-{error}\r\n".encode(), [], None
        if reply:
            self._reply(reply)
            if words[0].lower() == b"quit":
                self._leave()
            return
        request = _Request(parts, merge)
        self._requests.append(request)
        for which, part in enumerate(parts):
            packed = hiredis.pack_command(part.words)  # type: ignore[arg-type]  # it takes any number of words
            self._shards.send(part.server, packed, self._answer(request, which))

    def _reply(self, reply: bytes) -> None:
        request = _Request([], None)
        request.reply = reply
        self._requests.append(request)
        self._flush_soon()

    def _leave(self) -> None:
        """Ends the connection once all is answered; what was asked later is not."""
        self._leaving = True
        self._backlog.clear()

    def _answer(self, request: _Request, which: int) -> Answer:
        def answer(reply: bytes) -> None:
            if request.answered(which, reply):
                self._flush_soon()

        return answer

    # --- replies

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
        while self._requests and self._requests[0].reply:
            out.append(self._requests.popleft().reply)
        if out:
            transport.write(b"".join(out))
        if self._leaving and not self._requests and not self._backlog:
            transport.close()
        else:
            self._go_on()

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
