"""A client's connection and the backend's that serves it: bytes both ways, and one end for both.

    client --bytes--> Tunnel --bytes--> backend, chosen by least connections

Nothing is read while the other side does not take it (the buffers of the transports are the only queue). An end of one
half is passed on as such; whichever connection is lost first, what came before is delivered to the other side, and
then that one is closed as well. Once one half has ended, the rest ends when nothing moves for `half_closed_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from datacenter.gateway.backends import Backend, Backends
from datacenter.gateway.connections import Connections
from datacenter.gateway.options import GatewayOptions

log = logging.getLogger("datacenter.gateway")
CLIENT, BACKEND = "gateway client", "gateway to"  # owners in the ledger


class _Side(asyncio.Protocol):
    """One of the two connections of a tunnel."""

    def __init__(self, tunnel: Tunnel, owner: str) -> None:
        self.tunnel = tunnel
        self.owner = owner
        self.number = -1
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.early = b""  # came before there was anybody to take it
        self.said_all = False  # its half has ended

    @property
    def others(self) -> asyncio.Transport | None:
        """The other side's transport, if it still takes anything."""
        transport = None if self.other is None else self.other.transport
        return None if transport is None or transport.is_closing() else transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self.transport = transport
        self.number = self.tunnel.connections.adopt(transport, self.owner)
        self.tunnel.made(self)

    def data_received(self, data: bytes) -> None:
        self.tunnel.moved += len(data)
        if self.other is None:  # uvloop reads once although connection_made said not to
            self.early += data
            if self.transport is not None:
                self.transport.pause_reading()
            return
        others = self.others
        if others is not None:
            others.write(data)

    def eof_received(self) -> bool:
        self.said_all = True
        if self.other is None:
            return True  # passed on as soon as somebody takes it
        others = self.others
        if others is None or not others.can_write_eof() or (self.other is not None and self.other.said_all):
            return False  # this connection ends, and with it the other
        others.write_eof()
        self.tunnel.end_when_idle()
        return True

    def pause_writing(self) -> None:
        others = self.others
        if others is not None:
            others.pause_reading()

    def resume_writing(self) -> None:
        others = self.others
        if others is not None:
            others.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.tunnel.connections.forget(self.number)
        self.tunnel.lost(self)


class Tunnel:
    """See the module. `client` is the protocol of the accepted connection. `ended(tunnel)` is called once, at the end.

    Lives in one event loop.
    """

    def __init__(
        self,
        backends: Backends,
        options: GatewayOptions,
        connections: Connections,
        ended: Callable[[Tunnel], None],
    ) -> None:
        self.options = options
        self.connections = connections
        self.backend: Backend | None = None
        self.refused = False  # no backend took it
        self.moved = 0  # bytes, both ways
        self.client = _Side(self, CLIENT)
        self._backends = backends
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._server: _Side | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moved_before: tuple[int, ...] = ()
        self._over = False

    def abort(self) -> None:
        """Ends both connections now; what was not yet sent is lost. Idempotent."""
        for side in (self.client, self._server):
            if side is not None and side.transport is not None:
                side.transport.abort()

    def leave_when_answered(self) -> None:
        """What a tunnel carries has no answers that it would know of: it goes on."""

    def end_when_idle(self) -> None:
        """From now on it ends once nothing moves for `half_closed_s`."""
        if self._timer is None and not self._over:
            self._timer = self._loop.call_later(self.options.half_closed_s, self._look)

    # --- events of the two connections

    def made(self, side: _Side) -> None:
        assert side.transport is not None
        if side is self.client:
            side.transport.pause_reading()  # until somebody takes it
            self._connecting = self._loop.create_task(self._connect())
        elif self.client.transport is None or self.client.transport.is_closing():
            side.transport.abort()
        else:  # at once: what the server says first may come before the attempt returns
            self._server = side
            side.other, self.client.other = self.client, side
            early, self.client.early = self.client.early, b""
            if early:
                side.transport.write(early)
            if self.client.said_all:
                side.transport.write_eof()
                self.end_when_idle()
            self.client.transport.resume_reading()

    def lost(self, side: _Side) -> None:
        side.transport = None
        if side is self.client and self._connecting is not None:
            self._connecting.cancel()
        other = self._server if side is self.client else self.client
        if other is not None and other.transport is not None:
            other.transport.close()
            self.end_when_idle()
            return
        self._end()

    # --- inside

    async def _connect(self) -> None:
        tried: set[str] = set()
        while self._server is None and len(tried) < self.options.attempts:
            backend = self._backends.choose(tried)
            if backend is None:
                break
            tried.add(backend.id)
            self._backends.opened(backend)
            self.backend = backend
            try:
                await self._connect_to(backend)
            except (OSError, asyncio.TimeoutError) as error:
                log.info("backend %s: %s", backend.endpoint, error or f"no answer within {self.options.connect_s:g} s")
            finally:
                if self._server is None:
                    self._backends.closed(backend)
                    self.backend = None
        if self._server is None:
            self.refused = True
            self.abort()

    async def _connect_to(self, backend: Backend) -> None:
        side = _Side(self, f"{BACKEND} {backend.endpoint}")
        attempt = self._loop.create_connection(lambda: side, backend.host, backend.port)
        await asyncio.wait_for(attempt, self.options.connect_s)

    def _look(self) -> None:
        """Ends the tunnel if nothing has moved since the last look."""
        self._timer = None
        if self._moved_before == (moved := self._moved()):
            self.abort()
        else:
            self._moved_before = moved
            self.end_when_idle()

    def _moved(self) -> tuple[int, ...]:
        sides = [side.transport for side in (self.client, self._server) if side is not None and side.transport]
        return (self.moved, *(transport.get_write_buffer_size() for transport in sides))

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self.backend is not None and self._server is not None:
            self._backends.closed(self.backend)
        self.client.other = None
        if self._server is not None:
            self._server.other = None
        self._ended(self)
