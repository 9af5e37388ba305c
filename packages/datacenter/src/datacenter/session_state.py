"""What a session keeps: its options, what survives a connection, what belongs to one and dies with it. Plain data."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from datacenter import options, wire
from datacenter.checks import DAY_S, FLAG, check, check_reconnect, seconds, whole
from datacenter.sockets.loop import LoopSocket
from datacenter.wire import Instance, ServiceType

#: heartbeats whose answers may still come: more are missed only by a connection that is given up
KEPT_BEATS: Final = 16


@dataclass
class SessionOptions:
    """Named limits of a session. Seconds. Raises BadOptionError for a value that cannot work."""

    heartbeat_s: float = options.HEARTBEAT_S
    missed_heartbeats: int = options.MISSED_HEARTBEATS
    request_s: float = options.CONNECT_DEADLINE_S
    reconnect_min_ms: int = options.RECONNECT_MIN_MS
    reconnect_max_ms: int = options.RECONNECT_MAX_MS
    insecure: bool = options.INSECURE

    def __post_init__(self) -> None:
        check(
            self,
            heartbeat_s=seconds(above=0, most=DAY_S),
            missed_heartbeats=whole(1),
            request_s=seconds(above=0),
            insecure=FLAG,
        )
        check_reconnect(self, self.reconnect_min_ms, self.reconnect_max_ms)


@dataclass
class Request:
    message: wire.ToBroker
    future: concurrent.futures.Future[Any]
    deadline: float


@dataclass
class Registration:
    name: str
    type: ServiceType
    instance: Instance
    on_drain: Callable[[], object]
    on_epoch: Callable[[int], object]
    epoch: int | None = None
    problem: str = ""  # why the broker does not register it, as it was logged last
    request: int = 0  # the latest that asked for it


class Connection:
    """Everything that belongs to one connection and dies with it."""

    def __init__(self, stream: LoopSocket, now: float) -> None:
        self.stream = stream
        self.welcome: wire.Welcome | None = None
        self.hello_sent = False
        #: what found no room, in order. Its bound: a broker that does not read is soon silent, and the connection ends
        self.unsent: deque[wire.ToBroker] = deque()
        self.opened = now
        self.last_sent = now
        self.last_received = now
        self.last_beat = float("-inf")
        self.beats = 0  # heartbeats, which are numbered from 1
        #: number -> when it was sent, on the clock of leases; of the latest ones
        self.sent: dict[int, float] = {}

    def beat(self, now: float, sent: float) -> None:
        """The next heartbeat is sent."""
        self.last_beat = now
        self.beats += 1
        self.sent[self.beats] = sent
        self.sent.pop(self.beats - KEPT_BEATS, None)
