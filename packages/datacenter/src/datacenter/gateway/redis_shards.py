"""The Redis servers behind a gateway as shards: each key belongs to one, and to the same one in every worker.

A consistent ring (ketama) over the endpoints of all registered instances, quiet ones as well: a server that does not
answer for a moment keeps its keys, and requests for them wait, or get errors; when it has left the registry, its keys,
and no others, go to the rest, with the requests that wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final, cast

import hiredis
from uhashring import HashRing

from datacenter.gateway.backends import Backend
from datacenter.gateway.connections import Connections
from datacenter.gateway.options import GatewayOptions
from datacenter.gateway.redis_commands import CommandTable, Merge, NotForShardsError, Part, hash_tag, merged, split
from datacenter.gateway.redis_link import Receiver, RedisLink

log = logging.getLogger("datacenter.gateway")
#: Keys whose server is remembered: to hash one takes as long as all else that a request costs.
REMEMBERED: Final = 65_536
LONGEST_REMEMBERED: Final = 256  # bytes


class _Gathering:
    """A request that was taken apart, until each of its parts is answered. A part's ticket is its place."""

    __slots__ = ("merge", "missing", "parts", "receiver", "replies", "ticket")

    def __init__(self, receiver: Receiver, ticket: int, parts: list[Part], merge: Merge) -> None:
        self.receiver = receiver
        self.ticket = ticket
        self.parts = parts
        self.merge: Merge = merge
        self.replies: list[bytes] = [b""] * len(parts)
        self.missing = len(parts)

    @property
    def gone(self) -> bool:
        """Whoever asked is."""
        return self.receiver.gone

    def answered(self, tickets: Sequence[int], replies: Sequence[bytes]) -> None:
        for place, reply in zip(tickets, replies, strict=True):
            self.replies[place] = reply
        self.missing -= len(tickets)
        if not self.missing:
            self.receiver.answered((self.ticket,), (merged(self.merge, self.parts, self.replies),))


class RedisShards:
    """See the module. Lives in one event loop."""

    def __init__(self, options: GatewayOptions, connections: Connections) -> None:
        self._options = options
        self._connections = connections
        self._links: dict[str, RedisLink] = {}  # by endpoint
        self._leaving: set[RedisLink] = set()
        self._ring = HashRing(nodes=[], hash_fn="ketama")
        self._owners: dict[bytes, RedisLink] = {}
        self._table: CommandTable | None = None
        self.known = asyncio.Event()  # what the servers' commands are
        self._simple: frozenset[bytes] = frozenset()

    def update(self, backends: Iterable[Backend]) -> None:
        """These are the servers now."""
        now = {backend.endpoint: backend for backend in backends}
        self._leaving = {link for link in self._leaving if not link.closed}
        unsent = []
        for endpoint in self._links.keys() - now.keys():
            link = self._links.pop(endpoint)
            unsent += link.take_unsent()
            link.close()
            self._leaving.add(link)
        for endpoint in now.keys() - self._links.keys():
            self._links[endpoint] = RedisLink(now[endpoint], self._options, self._connections, self._know)
        self._ring = HashRing(nodes=sorted(now), hash_fn="ketama")
        self._owners.clear()
        for request, receiver, ticket in unsent:
            reader = hiredis.Reader()
            reader.feed(request)
            self.ask(cast("list[bytes]", reader.gets()), receiver, ticket)

    def link_of(self, words: Sequence[bytes]) -> RedisLink | None:
        """Where a command of one key is to go as it is. None for all others: `ask`."""
        if words[0] not in self._simple or len(words) == 1:
            return None
        return self._owners.get(words[1]) or self._owner(words[1])

    def ask(self, words: Sequence[bytes], receiver: Receiver, ticket: int) -> None:
        """Sends a command where it belongs, taken apart if need be; the receiver is told once what became of it."""
        try:
            parts, merge = self._parts(words)
        except NotForShardsError as error:
            receiver.answered((ticket,), (f"-{error}\r\n".encode(),))
            return
        asking = _Gathering(receiver, ticket, [part for _, part in parts], merge) if merge else receiver
        for which, (link, part) in enumerate(parts):
            packed = hiredis.pack_command(part.words)  # type: ignore[arg-type]  # it takes any number of words
            link.send(packed, asking, which if merge else ticket)

    def _parts(self, words: Sequence[bytes]) -> tuple[list[tuple[RedisLink, Part]], Merge | None]:
        """Where a command is to go. Raises NotForShardsError."""
        if not self._links:
            raise NotForShardsError("ERR no redis server is registered; see `datacenter ls`")
        if self._table is None:
            raise NotForShardsError("ERR no redis server has answered yet; try again")
        keys = self._table.keys(words)
        parts, merge = split(words, keys, [self._endpoint(words[key]) for key in keys])
        return [(self._links[part.server], part) for part in parts], merge

    def in_flight(self) -> dict[str, int]:
        """Endpoint -> requests that wait for their reply."""
        return {endpoint: link.in_flight for endpoint, link in self._links.items()}

    async def close(self) -> None:
        """Ends all connections; returns when they are gone. Idempotent."""
        self.update(())
        for link in list(self._leaving):
            await link.wait_closed()
        self._leaving.clear()

    def _owner(self, key: bytes) -> RedisLink | None:
        if not self._links:
            return None
        owner = self._links[self._endpoint(key)]
        if len(key) <= LONGEST_REMEMBERED:
            if len(self._owners) >= REMEMBERED:
                self._owners.clear()
            self._owners[key] = owner
        return owner

    def _endpoint(self, key: bytes) -> str:
        owner = self._owners.get(key)
        return owner.backend.endpoint if owner else str(self._ring.get_node(hash_tag(key).decode("latin-1")))

    def _know(self, table: CommandTable) -> None:
        self._table, self._simple = table, table.simple
        self.known.set()
