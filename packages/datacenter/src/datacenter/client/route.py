"""What a client knows of one service, and what it tells its user of it. Plain data; the client moves it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from datacenter import options
from datacenter.calls import Pending
from datacenter.routes.direct import Peer
from datacenter.wire import Resolution

DEFAULT_BROKER: Final = "tcp://127.0.0.1:7700"

State = Literal["connected", "lost", "resolving", "restored"]


@dataclass(frozen=True)
class StateEvent:
    """What `on_state` reports. `service` is "" for the session with the broker, else the service concerned.

    connected: for the first time. lost: no connection left. resolving: looking for an instance. restored: connected
    again.
    """

    state: State
    service: str
    reason: str


@dataclass(frozen=True)
class ClientOptions:
    """Named limits of a client. Seconds, milliseconds, counts."""

    deadline_s: float = options.DEADLINE_S
    max_in_flight: int = options.MAX_IN_FLIGHT
    max_resends: int = options.MAX_RESENDS
    reconnect_min_ms: int = options.RECONNECT_MIN_MS
    reconnect_max_ms: int = options.RECONNECT_MAX_MS
    insecure: bool = options.INSECURE


class Route:
    """One service as one client knows it: its resolution, its peers, and the calls that wait for one of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.resolution: Resolution | None = None
        self.idempotent: frozenset[str] = frozenset()
        self.endpoints: tuple[str, ...] = ()
        self.peers: list[Peer] = []
        self.waiting: deque[Pending] = deque()
        self.avoid: set[str] = set()  # endpoints that answered "moved", until the next resolution
        self.max_message_bytes: int | None = None  # the least that its instances take
        self.was_connected = False
        self.state: State | None = None

    def accept(self, news: Resolution) -> tuple[list[str], list[str]]:
        """Takes a new resolution over; returns the endpoints that are (new, gone)."""
        before = self.endpoints
        self.resolution = news
        self.avoid.clear()
        self.endpoints = tuple(dict.fromkeys(instance.endpoint for instance in news.instances))
        if news.instances:
            declared = [
                frozenset(method.name for method in instance.methods if method.idempotent)
                for instance in news.instances
            ]
            self.idempotent = frozenset.intersection(*declared)
            self.max_message_bytes = min(
                (instance.max_message_bytes for instance in news.instances if instance.max_message_bytes), default=None
            )
        return (
            [endpoint for endpoint in self.endpoints if endpoint not in before],
            [endpoint for endpoint in before if endpoint not in self.endpoints],
        )

    def forget_ended(self) -> None:
        """Drops waiting calls that have ended by their deadline or were cancelled, wherever they stand."""
        if any(pending.future.done() for pending in self.waiting):
            self.waiting = deque(pending for pending in self.waiting if not pending.future.done())
