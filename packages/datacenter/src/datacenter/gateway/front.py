"""The front of a gateway in one worker: accepts clients, gives each what serves it, and ends all in order.

Each worker listens for itself, all at the same address (SO_REUSEPORT): the kernel gives each connection to one of them,
and nobody inherits anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, cast

from datacenter.errors import BadOptionError
from datacenter.gateway.backends import Backends
from datacenter.gateway.connections import Connections
from datacenter.gateway.options import GatewayOptions
from datacenter.gateway.tunnel import Tunnel
from datacenter.sockets.ledger import Ledger
from datacenter.wire import Instance

if TYPE_CHECKING:
    from datacenter.gateway.redis_client import RedisClient
    from datacenter.gateway.redis_shards import RedisShards

log = logging.getLogger("datacenter.gateway")
Balance = Literal["least-connections", "redis-keys"]
#: what a worker needs besides its clients' connections: its loop, its pipe, its listener, shards
_RESERVE: Final = 64
BACKLOG: Final = 1024


class Front:
    """See the module. Lives in one event loop. It closes `listener`, at the end at the latest.

    Raises BadOptionError where what a balance needs is not installed.
    """

    def __init__(
        self,
        listener: socket.socket,
        balance: Balance = "least-connections",
        options: GatewayOptions | None = None,
        *,
        ledger: Ledger,
    ) -> None:
        self.options = options or GatewayOptions()
        self._connections = Connections(ledger, self.options.silence_s)
        self.counts = {"accepted": 0, "turned_away": 0, "refused": 0}
        self._listener = listener
        self._backends = Backends()
        self._shards = _shards(self.options, self._connections) if balance == "redis-keys" else None
        self._clients: set[Tunnel | RedisClient] = set()
        self._server: asyncio.Server | None = None
        self._most = self.options.max_connections or _room()
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Begins to accept."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._server = await loop.create_server(self._new_client, sock=self._listener, backlog=BACKLOG)

    async def prepared(self) -> None:
        """Before `start`, after `update`: waits until requests can be passed on, which sharded Redis can do when one of
        the servers has told its commands; for `connect_s` at most.
        """
        if self._shards is not None and self._backends.known():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._shards.known.wait(), self.options.connect_s)

    def update(self, instances: Iterable[Instance]) -> None:
        """These are the instances of the service now. Connections to one that has left end after `drain_s`."""
        loop = asyncio.get_running_loop()
        for backend in self._backends.update(instances):
            log.info("backend %s has left", backend.endpoint)
            if self._shards is None:
                loop.call_later(self.options.drain_s, self._end_tunnels, backend.id)
        if self._shards is not None:
            self._shards.update(self._backends.known())

    async def drain(self) -> None:
        """Accepts no more, waits until the clients have gone or have their answers (`drain_s`), ends the rest."""
        queued = self._accept_queued()
        self._stop_accepting()
        await self._take(queued)
        for client in list(self._clients):
            client.leave_when_answered()
        try:
            await asyncio.wait_for(self._idle.wait(), self.options.drain_s)
        except asyncio.TimeoutError:
            log.warning("%d clients were still connected after %g s", len(self._clients), self.options.drain_s)
        await self.abort()

    async def abort(self) -> None:
        """Ends everything now. Idempotent."""
        self._stop_accepting()
        for client in list(self._clients):
            client.abort()
        if self._shards is not None:
            await self._shards.close()
        await self._idle.wait()  # an aborted connection is gone in the next turn of the loop

    def statistics(self) -> dict[str, object]:
        """Counts since the start, and what is open now."""
        backends = self._backends.connections() if self._shards is None else self._shards.in_flight()
        return {**self.counts, "clients": len(self._clients), "backends": backends}

    @property
    def clients(self) -> int:
        """Connections of clients, now."""
        return len(self._clients)

    def __repr__(self) -> str:
        return f"<Front {len(self._clients)} clients, {len(self._backends.known())} backends>"

    def _new_client(self) -> asyncio.Protocol:
        if len(self._clients) >= self._most:
            self.counts["turned_away"] += 1
            return _TurnedAway()
        self.counts["accepted"] += 1
        self._idle.clear()
        if self._shards is not None:
            from datacenter.gateway.redis_client import RedisClient

            client = RedisClient(self._shards, self.options, self._connections, self._gone)
            self._clients.add(client)
            return client
        tunnel = Tunnel(self._backends, self.options, self._connections, self._gone)
        self._clients.add(tunnel)
        return tunnel.client

    def _gone(self, client: Tunnel | RedisClient) -> None:
        self._clients.discard(client)
        if isinstance(client, Tunnel) and client.refused:
            self.counts["refused"] += 1
        if not self._clients:
            self._idle.set()

    def _end_tunnels(self, backend_id: str) -> None:
        known = {backend.id for backend in self._backends.known()}
        for client in list(self._clients):
            if isinstance(client, Tunnel) and client.backend is not None and client.backend.id == backend_id:
                if backend_id in known:  # it has come back meanwhile
                    return
                client.abort()

    def _accept_queued(self) -> list[socket.socket]:
        """The connections that the kernel has made and nobody has accepted: it resets them when the listener closes."""
        accepted: list[socket.socket] = []
        if self._server is not None:
            with contextlib.suppress(OSError):  # none left, or no descriptor for it
                while len(accepted) < BACKLOG:
                    accepted.append(self._listener.accept()[0])
        return accepted

    async def _take(self, accepted: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        try:
            while accepted:
                await loop.connect_accepted_socket(self._new_client, accepted.pop())
        finally:  # it hurries
            for each in accepted:
                each.close()

    def _stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._listener.close()


def check_installed(balance: Balance) -> None:
    """Raises BadOptionError where what this balance needs is not installed."""
    if balance != "redis-keys":
        return
    try:
        import hiredis  # noqa: F401
        import uhashring  # noqa: F401
    except ImportError as error:
        raise BadOptionError(
            f"the balance redis-keys needs {error.name}, which is not installed",
            "Install it: pip install 'datacenter[gateway]'.",
        ) from None


def _shards(options: GatewayOptions, connections: Connections) -> RedisShards:
    check_installed("redis-keys")
    from datacenter.gateway.redis_shards import RedisShards

    return RedisShards(options, connections)


class _TurnedAway(asyncio.Protocol):
    """A client beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        transport.abort()


def _room() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (soft - _RESERVE) // 2)
