"""Which connections exist, from monitor events. Pure: no socket, no clock.

A count that goes up at one event and down at another is wrong for ever after one that came twice, or never (a failed
handshake has a CONNECTED and a DISCONNECTED but no HANDSHAKE_SUCCEEDED; a socket that is closed tells no end at all).
So nothing is counted here: connections are a set, by identity, and every event says what is in it or not. What comes
twice changes nothing, what contradicts is counted as `ignored`, and no number can fall below zero.

Identity is (generation of the socket, descriptor). The generation is unique in the process, so an event of a socket
that is gone meanwhile, or a descriptor's number used again, is never taken for another's. HANDSHAKE events carry no
descriptor: on a connecting socket the address names the connection, since libzmq keeps one for each; on a listening one
it does not (all have the listener's), so accepted connections are counted from ACCEPTED to DISCONNECTED.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datacenter.sockets.events import MonitorEvent


@dataclass
class _Socket:
    open: dict[int, str] = field(default_factory=dict)  # descriptor -> endpoint, of connections that have not ended
    made: dict[str, int] = field(default_factory=dict)  # endpoint -> descriptor, of connections that we made
    ready: set[str] = field(default_factory=set)  # endpoints of `made` that have shaken hands


class Connections:
    """The connections of a set of sockets. Not thread-safe: one owner (the hub's thread, or under a lock)."""

    def __init__(self) -> None:
        self._sockets: dict[int, _Socket] = {}
        self.ignored = 0  # events of sockets that are gone, or about connections that are not there

    def born(self, generation: int) -> None:
        """Events of this socket count from now on."""
        self._sockets.setdefault(generation, _Socket())

    def gone(self, generation: int) -> None:
        """The socket is closed: so are its connections, whatever events did not come."""
        self._sockets.pop(generation, None)

    def take(self, event: MonitorEvent) -> None:
        """Note one event. Any event, in any order, any number of times."""
        socket = self._sockets.get(event.generation)
        if socket is None:
            self.ignored += 1
            return
        if event.name == "ACCEPTED":
            self._drop(socket, event.value)  # the number was used before: that connection has ended
            socket.open[event.value] = event.endpoint
        elif event.name == "CONNECTED":
            self._drop(socket, event.value)
            self._drop(socket, socket.made.get(event.endpoint, -1))
            socket.open[event.value] = event.endpoint
            socket.made[event.endpoint] = event.value
        elif event.name == "HANDSHAKE_SUCCEEDED":
            if event.endpoint in socket.made:
                socket.ready.add(event.endpoint)
        elif event.name.startswith("HANDSHAKE_FAILED"):
            # Its DISCONNECTED follows, by number; on a listener nobody knows which connection it was.
            socket.ready.discard(event.endpoint)
        elif event.name in ("DISCONNECTED", "CLOSED") and not self._drop(socket, event.value):
            # CLOSED is also that of a listener or of a connect that failed: never in the set.
            self.ignored += event.name == "DISCONNECTED"

    @staticmethod
    def _drop(socket: _Socket, descriptor: int) -> bool:
        endpoint = socket.open.pop(descriptor, None)
        if endpoint is None:
            return False
        if socket.made.get(endpoint) == descriptor:
            del socket.made[endpoint]
            socket.ready.discard(endpoint)
        return True

    def count(self, generation: int | None = None) -> int:
        """TCP or IPC connections that are open: of one socket, or of all."""
        return sum(len(socket.open) for socket in self._of(generation))

    def ready(self, generation: int | None = None) -> int:
        """Connections that we made and that have shaken hands. Never more than `count()`."""
        return sum(len(socket.ready) for socket in self._of(generation))

    def identities(self) -> frozenset[tuple[int, int]]:
        """(generation, descriptor) of each."""
        return frozenset((generation, number) for generation, socket in self._sockets.items() for number in socket.open)

    def _of(self, generation: int | None) -> list[_Socket]:
        if generation is None:
            return list(self._sockets.values())
        socket = self._sockets.get(generation)
        return [] if socket is None else [socket]

    def __repr__(self) -> str:
        return f"<Connections {self.count()} open, {self.ready()} ready, {len(self._sockets)} sockets>"
