"""A worker's one connection to one Redis server: requests of all clients go out in turn, replies come back in turn.

    connecting --connected--> open --lost--> resting (a pause that doubles) --> connecting
        \\--failed--> resting

What waits to be sent when an attempt fails, and what was sent when a connection ends, is answered with an error at
once: never sent again, as it may have been carried out. A request while the link rests is refused at once. A server
that answers nothing for `request_s` while requests wait is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from datacenter.backoff import Backoff
from datacenter.errors import ProtocolError
from datacenter.gateway.backends import Backend
from datacenter.gateway.connections import Connections
from datacenter.gateway.options import GatewayOptions
from datacenter.gateway.redis_commands import CommandTable
from datacenter.gateway.redis_scan import ReplyScanner
from datacenter.gateway.tunnel import BACKEND
from datacenter.options import RECONNECT_MAX_MS, RECONNECT_MIN_MS

log = logging.getLogger("datacenter.gateway")

#: called once with the reply's bytes, or with an error reply
Answer = Callable[[bytes], None]


class RedisLink(asyncio.Protocol):
    """See the module. `on_table(table)` is called with what the server says of its commands, at each connection."""

    def __init__(
        self,
        backend: Backend,
        options: GatewayOptions,
        connections: Connections,
        on_table: Callable[[CommandTable], None],
    ) -> None:
        self.backend = backend
        self._connections = connections
        self._number = -1
        self._gone = asyncio.Event()  # there is no connection
        self._gone.set()
        self._options = options
        self._on_table = on_table
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(RECONNECT_MIN_MS / 1000, RECONNECT_MAX_MS / 1000)
        self._transport: asyncio.Transport | None = None
        self._scanner = ReplyScanner(options.max_redis_bytes)
        self._waiting: deque[tuple[float, Answer]] = deque()  # sent, oldest first, with the time
        self._unsent: list[tuple[bytes, Answer]] = []  # while it connects
        self._out: list[bytes] = []  # of this turn of the loop
        self._resting: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._problem = ""
        self._closed = False
        self._connecting: asyncio.Task[None] | None = self._loop.create_task(self._connect())

    @property
    def closed(self) -> bool:
        """Whether there is no connection, and no attempt to make one."""
        return self._connecting is None and self._gone.is_set()

    @property
    def in_flight(self) -> int:
        """Requests that wait for their reply."""
        return len(self._waiting) + len(self._unsent)

    def send(self, request: bytes, answer: Answer) -> None:
        """Sends a request; `answer` is called once, now or later."""
        if self._transport is not None:
            self._waiting.append((self._loop.time(), answer))
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(request)
        elif self._connecting is not None:
            self._unsent.append((request, answer))
        else:
            answer(self._error(f"is not connected ({self._problem})"))

    def close(self) -> None:
        """Ends it now; what waits is answered with an error. Idempotent."""
        self._closed = True
        for timer in (self._resting, self._watching):
            if timer is not None:
                timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._fail("has left")

    async def wait_closed(self) -> None:
        """After `close`: until the connection is gone, which takes a turn or two of the loop."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        await self._gone.wait()

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._number = self._connections.adopt(transport, f"{BACKEND} {self.backend.endpoint}")
        self._transport = transport
        self._gone.clear()
        self._scanner = ReplyScanner(self._options.max_redis_bytes)
        self.send(hiredis.pack_command((b"COMMAND",)), self._described)
        unsent, self._unsent = self._unsent, []
        for request, answer in unsent:
            self.send(request, answer)
        self._watch()

    def data_received(self, data: bytes) -> None:
        try:
            replies = self._scanner.feed(data)
        except ProtocolError as error:
            self._give_up(str(error))
            return
        for reply in replies:
            if not self._waiting:
                self._give_up("sent a reply that nobody asked for")
                return
            self._waiting.popleft()[1](reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._gone.set()
        self._connections.forget(self._number)
        self._fail(self._problem or (str(error) if error is not None else "closed the connection"))
        self._rest()

    async def _connect(self) -> None:
        try:
            attempt = self._loop.create_connection(lambda: self, self.backend.host, self.backend.port)
            await asyncio.wait_for(attempt, self._options.connect_s)
            self._problem = ""
        except (OSError, asyncio.TimeoutError) as error:
            problem = getattr(error, "strerror", None) or f"no answer within {self._options.connect_s:g} s"
            if problem != self._problem:
                log.warning("redis at %s: %s", self.backend.endpoint, problem)
            self._problem = problem
            if self._transport is not None:
                self._transport.abort()
            else:
                self._fail(problem)
                self._rest()
        finally:
            self._connecting = None

    def _rest(self) -> None:
        if not self._closed and self._resting is None:
            self._resting = self._loop.call_later(self._backoff.next(), self._wake)

    def _wake(self) -> None:
        self._resting = None
        if not self._closed and self._transport is None and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(b"".join(out))

    def _watch(self) -> None:
        """Looks now and then whether the oldest request waits for too long."""
        self._watching = None
        if self._transport is None:
            return
        if self._waiting and self._loop.time() - self._waiting[0][0] > self._options.request_s:
            self._give_up(f"answered nothing for {self._options.request_s:g} s")
            return
        self._watching = self._loop.call_later(self._options.request_s / 4, self._watch)

    def _give_up(self, problem: str) -> None:
        log.warning("redis at %s: %s", self.backend.endpoint, problem)
        self._problem = problem
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, problem: str) -> None:
        self._problem = problem
        sent, self._waiting = self._waiting, deque()
        unsent, self._unsent, self._out = self._unsent, [], []
        for _, answer in sent:
            answer(self._error(f"{problem}; whether the request was carried out is unknown"))
        for _, answer in unsent:
            answer(self._error(f"{problem}; the request was not sent"))

    def _error(self, problem: str) -> bytes:
        return f"-ERR redis at {self.backend.endpoint.removeprefix('tcp://')}: {problem}\r\n".encode()

    def _described(self, reply: bytes) -> None:
        reader = hiredis.Reader()
        reader.feed(reply)
        described: Any = reader.gets()
        if isinstance(described, list):
            self._backoff.reset()
            self._on_table(CommandTable(described))
