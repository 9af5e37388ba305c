"""The servers behind a gateway: which there are, who gets the next connection, whose connections are to end. Pure.

The registry's instances are taken in whole resolutions. A quiet one gets no new connections and keeps those it has. One
that has left the registry keeps them for a while, too (it may be draining), and then they are ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass

from datacenter.wire import Instance


@dataclass(frozen=True)
class Backend:
    """One server. `id` is its instance's; `endpoint` is tcp://HOST:PORT."""

    id: str
    endpoint: str
    quiet: bool = False

    @property
    def host(self) -> str:
        return self.endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])


class Backends:
    """Counts connections by backend. Not thread-safe: one owner."""

    def __init__(self) -> None:
        self._known: dict[str, Backend] = {}
        self._connections: Counter[str] = Counter()
        self._turn = 0

    def update(self, instances: Iterable[Instance]) -> tuple[Backend, ...]:
        """Takes the instances of a name as they are now; returns the backends that have left."""
        now = {
            each.id: Backend(each.id, each.endpoint, each.metadata.get("health") == "quiet")
            for each in instances
            if each.endpoint.startswith("tcp://")
        }
        left = tuple(backend for key, backend in self._known.items() if key not in now)
        self._known = now
        return left

    def known(self) -> tuple[Backend, ...]:
        """All that are registered, quiet ones as well."""
        return tuple(self._known.values())

    def choose(self, tried: Set[str] = frozenset()) -> Backend | None:
        """The healthy one with the fewest connections, but none of the ids in `tried`; equals take turns. None: there
        is none.
        """
        fit = [backend for backend in self._known.values() if not backend.quiet and backend.id not in tried]
        if not fit:
            return None
        least = min(self._connections[backend.id] for backend in fit)
        equal = [backend for backend in fit if self._connections[backend.id] == least]
        self._turn += 1
        return equal[self._turn % len(equal)]

    def opened(self, backend: Backend) -> None:
        """A connection to it is made, or being made."""
        self._connections[backend.id] += 1

    def closed(self, backend: Backend) -> None:
        """One `opened` has ended."""
        self._connections[backend.id] -= 1
        if self._connections[backend.id] <= 0:
            del self._connections[backend.id]

    def connections(self) -> dict[str, int]:
        """Endpoint -> connections, of those that are registered and of those that have left and still have some."""
        endpoints = {backend.id: backend.endpoint for backend in self._known.values()}
        return {endpoints.get(key, key): self._connections[key] for key in {*endpoints, *self._connections}}
