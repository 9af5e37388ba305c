"""What a client knows of one service, and what it tells its user of it. Plain data; the client moves it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from datacenter import options
from datacenter.calls import Pending
from datacenter.checks import FLAG, check, check_reconnect, seconds, whole
from datacenter.errors import BadOptionError
from datacenter.listening import reached_by_way_of
from datacenter.routes.direct import Peer
from datacenter.wire import Resolution

DEFAULT_BROKER: Final = "tcp://127.0.0.1:7700"

State = Literal["connected", "lost", "resolving", "restored"]

#: auto: direct where it can reach an instance, else relay
RouteChoice = Literal["auto", "direct", "relay"]


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
    """Named limits of a client. Seconds, milliseconds, counts. Raises BadOptionError for a value that cannot work."""

    deadline_s: float = options.DEADLINE_S
    max_in_flight: int = options.MAX_IN_FLIGHT
    max_resends: int = options.MAX_RESENDS
    reconnect_min_ms: int = options.RECONNECT_MIN_MS
    reconnect_max_ms: int = options.RECONNECT_MAX_MS
    insecure: bool = options.INSECURE
    route: RouteChoice = "auto"
    relay_after_s: float = options.RELAY_AFTER_S

    def __post_init__(self) -> None:
        check(
            self,
            deadline_s=seconds(above=0),
            max_in_flight=whole(1),
            max_resends=whole(),
            insecure=FLAG,
            relay_after_s=seconds(),
        )
        check_reconnect(self, self.reconnect_min_ms, self.reconnect_max_ms)
        if self.route not in get_args(RouteChoice):
            raise BadOptionError(f"route={self.route!r} is no route", "Use 'auto', 'direct' or 'relay'.")


class Route:
    """One service as one client knows it: its resolution, its peers, and the calls that wait for one of them.

    broker: the numeric address at which the broker is reached. A broker that listens at all addresses tells of relays
    that do so too: they are reached at the same one.
    relay_wanted: the broker was asked for a relay, whose endpoint is used while no instance is reached directly.
    """

    def __init__(self, name: str, choice: RouteChoice = "auto") -> None:
        self.name = name
        self.broker = ""
        self.choice = choice
        self.relay_wanted = choice == "relay"
        self.relay = ""  # the relay's endpoint while it is wanted and known
        self.resolution: Resolution | None = None
        self.idempotent: frozenset[str] = frozenset()
        self.endpoints: tuple[str, ...] = ()
        self.peers: list[Peer] = []
        self.waiting: deque[Pending] = deque()
        self.avoid: set[str] = set()  # endpoints that answered "moved", until the next resolution
        self.max_message_bytes: int | None = None  # the least that its instances take
        self.was_connected = False
        self.relay_timer: asyncio.TimerHandle | None = None
        self.state: State | None = None

    def accept(self, news: Resolution) -> tuple[list[str], list[str]]:
        """Takes a new resolution over; returns the endpoints that are (new, gone)."""
        self.resolution = news
        self.avoid.clear()
        if news.instances:
            declared = [
                frozenset(method.name for method in instance.methods if method.idempotent)
                for instance in news.instances
            ]
            self.idempotent = frozenset.intersection(*declared)
            self.max_message_bytes = min(
                (instance.max_message_bytes for instance in news.instances if instance.max_message_bytes), default=None
            )
        return self.want_relay(self.relay_wanted)

    def want_relay(self, wanted: bool) -> tuple[list[str], list[str]]:
        """Uses the relay, or does no more; returns the endpoints that are (new, gone)."""
        before, self.relay_wanted = self.endpoints, wanted
        if self.resolution is not None:
            self.relay = reached_by_way_of(self.resolution.relay, self.broker) if wanted else ""
            direct = [] if self.choice == "relay" else [instance.endpoint for instance in self.resolution.instances]
            self.endpoints = tuple(dict.fromkeys([*direct, self.relay] if self.relay else direct))
        return (
            [endpoint for endpoint in self.endpoints if endpoint not in before],
            [endpoint for endpoint in before if endpoint not in self.endpoints],
        )

    def usable(self, ready: Callable[[str], Peer | None]) -> list[Peer]:
        """The ready peers that calls may go to now: those of instances, or that of the relay if there is none."""
        if self.resolution is None or not self.resolution.instances:
            return []  # a relay without an instance would keep a call that could still be taken back
        peers = [
            peer
            for peer in map(ready, self.endpoints)
            if peer is not None and peer.state == "ready" and peer.endpoint not in self.avoid
        ]
        return [peer for peer in peers if peer.endpoint != self.relay] or peers

    def forget_ended(self) -> None:
        """Drops waiting calls that have ended by their deadline or were cancelled, wherever they stand."""
        if any(pending.future.done() for pending in self.waiting):
            self.waiting = deque(pending for pending in self.waiting if not pending.future.done())
