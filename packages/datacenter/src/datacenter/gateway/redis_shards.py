"""The Redis servers behind a gateway as shards: each key belongs to one, and to the same one in every worker.

A consistent ring (ketama) over the endpoints of all registered instances, quiet ones as well: a server that does not
answer for a moment keeps its keys, and requests for them get errors; when it has left the registry, its keys, and no
others, go to the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

from uhashring import HashRing

from datacenter.gateway.backends import Backend
from datacenter.gateway.connections import Connections
from datacenter.gateway.options import GatewayOptions
from datacenter.gateway.redis_commands import CommandTable, Merge, NotForShardsError, Part, hash_tag, split
from datacenter.gateway.redis_link import Answer, RedisLink

log = logging.getLogger("datacenter.gateway")
#: Owners of keys that are remembered: to hash one takes as long as to send a request.
REMEMBERED: Final = 65_536


class RedisShards:
    """See the module. Lives in one event loop."""

    def __init__(self, options: GatewayOptions, connections: Connections) -> None:
        self._options = options
        self._connections = connections
        self._links: dict[str, RedisLink] = {}  # by endpoint
        self._leaving: set[RedisLink] = set()
        self._ring = HashRing(nodes=[], hash_fn="ketama")
        self._owners: dict[bytes, str] = {}
        self._table: CommandTable | None = None

    def update(self, backends: Iterable[Backend]) -> None:
        """These are the servers now."""
        now = {backend.endpoint: backend for backend in backends}
        self._leaving = {link for link in self._leaving if not link.closed}
        for endpoint in self._links.keys() - now.keys():
            link = self._links.pop(endpoint)
            link.close()
            self._leaving.add(link)
        for endpoint in now.keys() - self._links.keys():
            self._links[endpoint] = RedisLink(now[endpoint], self._options, self._connections, self._know)
        self._ring = HashRing(nodes=sorted(now), hash_fn="ketama")
        self._owners.clear()

    def parts(self, words: Sequence[bytes]) -> tuple[list[Part], Merge | None]:
        """Where a command is to go. Raises NotForShardsError."""
        if not self._links:
            raise NotForShardsError("ERR no redis server is registered; see `datacenter ls`")
        if self._table is None:
            raise NotForShardsError("ERR no redis server has answered yet; try again")
        keys = self._table.keys(words)
        return split(words, keys, [self._owner(hash_tag(words[key])) for key in keys])

    def send(self, server: str, request: bytes, answer: Answer) -> None:
        """Sends to the server at this endpoint; `answer` is called once."""
        self._links[server].send(request, answer)

    def in_flight(self) -> dict[str, int]:
        """Endpoint -> requests that wait for their reply."""
        return {endpoint: link.in_flight for endpoint, link in self._links.items()}

    async def close(self) -> None:
        """Ends all connections; returns when they are gone. Idempotent."""
        self.update(())
        for link in list(self._leaving):
            await link.wait_closed()
        self._leaving.clear()

    def _owner(self, key: bytes) -> str:
        owner = self._owners.get(key)
        if owner is None:
            if len(self._owners) >= REMEMBERED:
                self._owners.clear()
            owner = self._owners[key] = str(self._ring.get_node(key.decode("latin-1")))
        return owner

    def _know(self, table: CommandTable) -> None:
        self._table = table
