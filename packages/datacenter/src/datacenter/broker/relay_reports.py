"""What a relay is told and what it says of itself: its limits, its state, its figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from datacenter.broker.relay_loop import LoopLimits, RelayCounts
from datacenter.checks import DAY_S, check, instance_of, seconds, whole
from datacenter.options import MAX_IN_FLIGHT, option
from datacenter.sockets import SocketOptions

#: entries of one table of a relay's loop, which takes the memory at its start
MAX_TABLE: Final = 10_000_000

RelayState = Literal["starting", "serving", "stopping", "ended", "forked"]


# fmt: off
@dataclass(frozen=True)
class RelayOptions:
    """Named limits of a relay. Counts, seconds, bytes."""

    max_instances: int = option(
        "relay", "max_instances", 256, "instances", "L",
        "Instances that one relay connects to. One more is logged, and tried again each second.")
    drain_s: float = option(
        "relay", "drain_s", 30.0, "s", "H",
        "An instance that has left the registry may take so long to answer what it was handed; then those calls are "
        "answered with `lost`.")
    max_in_flight: int = option(
        "relay", "max_in_flight", 65_536, "calls", "C",
        "Calls that instances were handed and have not answered, of all clients together. With so many, the next wait.")
    max_waiting: int = option(
        "relay", "max_waiting", 1000, "calls", "C",
        "Calls that wait for an instance with room, each until its deadline: then it is answered with `deadline`, "
        "unsent. With so many the relay reads no more, and TCP slows the clients.")
    late_reply_s: float = option(
        "relay", "late_reply_s", 1.0, "s", "B",
        "How long after its deadline a call's reply is still expected. Then the call is forgotten: its client has "
        "ended it, and a service that never answers must not fill the table of calls.")
    client_high_water: int = option(
        "relay", "client_high_water", MAX_IN_FLIGHT, "messages", "C",
        "Messages queued for one client: a reply each, or a bundle of small ones, 16 KiB at most. As many as a client "
        "may have calls in flight, so that one that reads loses none; those of one that does not are dropped and "
        "counted, and nobody waits for it.")
    instance_high_water: int = option(
        "relay", "instance_high_water", SocketOptions().send_high_water, "messages", "C",
        "Messages queued for one instance before others are preferred: a call each, or a bundle of small ones, 16 KiB "
        "at most. When all are full, calls wait.")
    max_message_bytes: int = option(
        "relay", "max_message_bytes", SocketOptions().max_message_bytes, "bytes", "",
        "Larger calls and replies end the connection that brought them. As everywhere else, so that a route changes "
        "nothing.")
    #: None: in C where it was built. True and False insist.
    native: bool | None = None

    def __post_init__(self) -> None:
        check(
            self,
            max_instances=whole(1, MAX_TABLE),
            drain_s=seconds(),
            max_in_flight=whole(1, MAX_TABLE),
            max_waiting=whole(1, MAX_TABLE),
            late_reply_s=seconds(most=DAY_S),
            client_high_water=whole(1),
            instance_high_water=whole(1),
            max_message_bytes=whole(1),
            native=instance_of(bool, or_none=True),
        )

    def loop_limits(self) -> LoopLimits:
        """The part that the loop needs."""
        late_reply_ms = int(self.late_reply_s * 1000)
        return LoopLimits(self.max_instances, self.max_waiting, self.max_in_flight, late_reply_ms)
# fmt: on


@dataclass(frozen=True)
class InstanceStatistics:
    """One instance as the relay sees it; `in_flight` calls were handed to it, and are still expected to be answered."""

    endpoint: str
    in_flight: int
    connected: bool
    leaving: bool


@dataclass(frozen=True)
class RelayStatistics:
    """A relay at one moment. `counts` are messages since its start; `clients` are open connections; `native` tells
    whether its loop is the one in C.
    """

    service: str
    endpoint: str
    state: RelayState
    clients: int
    connected: int
    instances: tuple[InstanceStatistics, ...]
    counts: RelayCounts
    native: bool
