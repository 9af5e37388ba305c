"""A worker's one connection to one Redis server: requests of all clients go out in turn, replies come back in turn.

    connecting --connected--> open --lost--> resting (a pause that doubles) --> connecting
        \\--failed--> resting

What was sent when a connection ends is answered with an error at once: never sent again, as it may have been carried
out. What was not sent waits until the server has been away for `return_s`, as one that restarts is back sooner (one
that still loads its data is not back); from then on it is refused at once, until the server has answered again. A
server that answers nothing for `request_s` while requests wait is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

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

_NOBODY: Final = object()
SHORT_REST_S: Final = 0.1
_COMMANDS, _STATE = 0, 1  # tickets of what a link itself asks
_PING: Final = hiredis.pack_command((b"PING",))
_LOADING: Final = b"-LOADING"


class Receiver(Protocol):
    """Who asked."""

    @property
    def gone(self) -> bool:
        """It may wait for no reply any more: what was not sent never will be."""

    def answered(self, tickets: Sequence[int], replies: Sequence[bytes]) -> None:
        """The reply to each of these requests, as it came, or an error reply. Each ticket comes once."""


class _Group:
    """Requests that were sent in one turn of the loop, one after another, by one receiver: what replies come of them is
    handed over at once.
    """

    __slots__ = ("receiver", "since", "tickets")

    def __init__(self, receiver: Receiver, since: float) -> None:
        self.receiver = receiver
        self.since = since
        self.tickets: list[int] = []

    def answer(self, replies: Sequence[bytes]) -> None:
        """The first of its requests are answered."""
        answered, self.tickets = self.tickets[: len(replies)], self.tickets[len(replies) :]
        self.receiver.answered(answered, replies)


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
        self._waiting: deque[_Group] = deque()  # sent, oldest first
        self._unsent: list[tuple[bytes, Receiver, int]] = []  # until it serves
        self._unsent_bytes = 0
        self._serves = False  # it is connected, and has answered
        self._loads = False  # it is connected, and reads its data
        self._asking: asyncio.TimerHandle | None = None  # whether it still does
        self._out: list[bytes] = []  # of this turn of the loop
        self._sender: object = _NOBODY  # whose group is the last one, in this turn
        self._resting: asyncio.TimerHandle | None = None
        self._patient = options.return_s > 0  # with a server that is away
        self._patience: asyncio.TimerHandle | None = None  # until it ends
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
        return sum(len(group.tickets) for group in self._waiting) + len(self._unsent)

    def send(self, request: bytes, receiver: Receiver, ticket: int) -> None:
        """Sends a request; the receiver is told once what became of it, now or later."""
        if not self._serves:
            self._send_later(request, receiver, ticket)
            return
        self._send_now(request, receiver, ticket)

    def _send_now(self, request: bytes, receiver: Receiver, ticket: int) -> None:
        if receiver is not self._sender:
            self._sender = receiver
            self._waiting.append(_Group(receiver, self._loop.time()))
            if not self._out:
                self._loop.call_soon(self._flush)
        self._waiting[-1].tickets.append(ticket)
        self._out.append(request)

    @property
    def gone(self) -> bool:
        """As a receiver, of what the server says of its commands."""
        return False

    def _send_later(self, request: bytes, receiver: Receiver, ticket: int) -> None:
        if self._closed or not (self._patient or self._is_coming):
            receiver.answered((ticket,), (self._error(f"is not connected ({self._problem})"),))
        elif self._unsent_bytes + len(request) > self._options.max_redis_bytes:
            receiver.answered((ticket,), (self._error("is away, and too much waits for it; the request was not sent"),))
        else:
            self._unsent_bytes += len(request)
            self._unsent.append((request, receiver, ticket))

    @property
    def _is_coming(self) -> bool:
        """Whether it will be known in a moment if it serves."""
        return self._connecting is not None or (self._transport is not None and not self._loads)

    def take_unsent(self) -> list[tuple[bytes, Receiver, int]]:
        """What waits to be sent, with who asked; this link forgets it."""
        unsent, self._unsent = self._unsent, []
        self._unsent_bytes = 0
        return unsent

    def close(self) -> None:
        """Ends it now; what waits is answered with an error. Idempotent."""
        self._closed = True
        for timer in (self._resting, self._watching, self._patience, self._asking):
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
        self._send_now(hiredis.pack_command((b"COMMAND",)), self, _COMMANDS)
        self._send_now(_PING, self, _STATE)
        if self._watching is not None:
            self._watching.cancel()
        self._watch()

    def data_received(self, data: bytes) -> None:
        try:
            replies = self._scanner.feed(data)
        except ProtocolError as error:
            self._give_up(str(error))
            return
        at = 0
        while at < len(replies):
            if not self._waiting:
                self._give_up("sent a reply that nobody asked for")
                return
            group, begin = self._waiting[0], at
            at += len(group.tickets)
            if at <= len(replies):
                self._waiting.popleft()
            group.answer(replies[begin:at])
        if not self._waiting:
            self._sender = _NOBODY

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._serves = self._loads = False
        self._gone.set()
        self._connections.forget(self._number)
        self._fail(self._problem or (str(error) if error is not None else "closed the connection"))
        self._away()

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
        finally:
            self._connecting = None
            if self._transport is None:  # also one that was lost again before this task came to its end
                self._away()

    def _away(self) -> None:
        """It rests, for moments only while requests may wait."""
        if self._closed:
            return
        if self._patient and self._patience is None:
            self._patience = self._loop.call_later(self._options.return_s, self._wait_no_longer)
        if self._resting is None:
            pause_s = self._backoff.next()
            self._resting = self._loop.call_later(min(pause_s, SHORT_REST_S) if self._patient else pause_s, self._wake)

    def _wait_no_longer(self) -> None:
        self._patience = None
        self._patient = False
        if not self._serves:
            self._fail_unsent(self._problem or "does not answer")

    def _is_back(self) -> None:
        self._backoff.reset()
        self._patient = self._options.return_s > 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _wake(self) -> None:
        self._resting = None
        if not self._closed and self._transport is None and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._sender = _NOBODY
        if self._transport is not None and out:
            self._transport.write(b"".join(out))

    def _watch(self) -> None:
        """Looks now and then whether the oldest request waits for too long."""
        self._watching = None
        if self._transport is None:
            return
        if self._waiting and self._loop.time() - self._waiting[0].since > self._options.request_s:
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
        self._out = []
        self._sender = _NOBODY
        lost = self._error(f"{problem}; whether the request was carried out is unknown")
        for group in sent:
            group.answer([lost] * len(group.tickets))
        if self._closed or not self._patient:
            self._fail_unsent(problem)

    def _fail_unsent(self, problem: str) -> None:
        unsent = self.take_unsent()
        not_sent = self._error(f"{problem}; the request was not sent")
        for _, receiver, ticket in unsent:
            receiver.answered((ticket,), (not_sent,))

    def _error(self, problem: str) -> bytes:
        return f"-ERR redis at {self.backend.endpoint.removeprefix('tcp://')}: {problem}\r\n".encode()

    def answered(self, tickets: Sequence[int], replies: Sequence[bytes]) -> None:
        """What the server says of itself: the first things that are asked of it."""
        for ticket, reply in zip(tickets, replies, strict=True):
            if self._transport is None or self._closed:
                return
            if ticket == _STATE:
                self._state_is(reply)
                continue
            reader = hiredis.Reader()
            reader.feed(reply)
            described: Any = reader.gets()
            if isinstance(described, list):
                self._on_table(CommandTable(described))

    def _state_is(self, reply: bytes) -> None:
        self._loads = reply.startswith(_LOADING)
        if self._loads:
            self._problem = "reads its data"
            self._asking = self._loop.call_later(SHORT_REST_S, self._ask_state)
            if not self._patient:
                self._fail_unsent(self._problem)
            elif self._patience is None:
                self._patience = self._loop.call_later(self._options.return_s, self._wait_no_longer)
            return
        self._is_back()
        self._serves = True
        for request, receiver, ticket in self.take_unsent():
            if receiver.gone:
                receiver.answered((ticket,), (self._error("was away; the request was not sent"),))
            else:
                self._send_now(request, receiver, ticket)

    def _ask_state(self) -> None:
        if self._transport is not None:
            self._send_now(_PING, self, _STATE)
