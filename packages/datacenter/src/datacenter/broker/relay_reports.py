"""What a relay is told and what it says of itself: its limits, its state, its figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datacenter import options
from datacenter.broker.relay_loop import RelayCounts
from datacenter.sockets import SocketOptions

RelayState = Literal["starting", "serving", "stopping", "ended", "forked"]


@dataclass(frozen=True)
class RelayOptions:
    """Named limits of a relay. Counts, seconds, bytes."""

    max_instances: int = 256
    #: An instance that has left the registry may take so long to answer what it was handed.
    drain_s: float = 30.0
    #: Replies queued for one client; as many as a client may have calls in flight, so one that reads loses none.
    client_high_water: int = options.MAX_IN_FLIGHT
    #: Calls queued for one instance before another is preferred, and the clients are slowed when all are full.
    instance_high_water: int = SocketOptions().send_high_water
    max_message_bytes: int = SocketOptions().max_message_bytes
    #: None: in C where it was built. True and False insist.
    native: bool | None = None


@dataclass(frozen=True)
class InstanceStatistics:
    """One instance as the relay sees it; `in_flight` calls were handed to it and not answered."""

    endpoint: str
    in_flight: int
    connected: bool
    leaving: bool


@dataclass(frozen=True)
class RelayStatistics:
    """A relay at one moment. `counts` are messages since its start; `clients` are open connections."""

    service: str
    endpoint: str
    state: RelayState
    clients: int
    connected: int
    instances: tuple[InstanceStatistics, ...]
    counts: RelayCounts
