"""What 10 000 hosts with 100 000 instances cost one broker, by simulation of its pure parts.

    python hold_scale.py                    three sizes, the largest 10 000 hosts (docs/scale.md explains the table)
    python hold_scale.py --hosts 1000       one size

No socket: the books of sessions, the registry and the encoding of messages are real, libzmq's part is not in it.
Processor time of one core, by the process's own clock, so that other load on the machine does not count.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from datacenter import wire
from datacenter.broker.sessions import Sessions
from datacenter.registry.shared import Node, SharedRegistry
from datacenter.registry.state import Registry, RegistryLimits
from datacenter.wire import Instance

SIZES = (100, 1_000, 10_000)
PER_HOST = 10  # instances of a host
PER_NAME = 100  # instances of a name
WATCHED = 10  # names that a host's clients watch
DEPLOY_S = 600.0  # everything is restarted once, in order, in so long
METHODS = tuple(wire.Method(name, "(key: str, value: bytes) -> int") for name in ("get", "put", "delete"))
LIMITS = RegistryLimits(max_instances=1_000_000, max_known_names=100_000)
NETWORK_BYTES_PER_S = 125_000_000.0  # 1 Gbit/s


@dataclass(frozen=True)
class Scale:
    hosts: int

    @property
    def instances(self) -> int:
        return self.hosts * PER_HOST

    @property
    def names(self) -> int:
        return max(1, self.instances // PER_NAME)

    @property
    def watchers(self) -> int:
        """Of one name."""
        return max(1, self.hosts * min(WATCHED, self.names) // self.names)


@dataclass(frozen=True)
class Costs:
    """Microseconds of one core, and bytes, of one of each."""

    register_us: float
    heartbeat_us: float
    tick_us: float
    resolve_us: float
    change_us: float
    change_bytes: float
    seen_us: float
    bytes_per_instance: float


def microseconds(work: Callable[[], object], count: int, rounds: int = 3) -> float:
    """The median of some rounds of `work`, each of which does `count` things."""
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        taken.append((time.process_time() - began) / count * 1e6)
    return statistics.median(taken)


def instance(number: int) -> Instance:
    return Instance(
        f"service-{number:012x}", f"tcp://10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:7001", METHODS,
        4711, f"host-{number // PER_HOST}", 0, {"zone": "a"}, 16 * 1024 * 1024,
    )  # fmt: skip


def filled(scale: Scale) -> tuple[Sessions, float, float]:
    """The books of a broker with everybody registered; the cost of one registration, and the memory of one."""
    registry = Registry(lease_s=3.0, grace_s=0.0, started_at=0.0, first_epoch=0, limits=LIMITS)
    welcome = wire.Welcome(wire.PROTOCOL, "0", "b", 1.0, 3, 3.0, 1024, LIMITS.max_instances)
    sessions = Sessions(registry, welcome, max_sessions=1_000_000)
    for host in range(scale.hosts):
        sessions.received(0.0, b"%d" % host, wire.Hello(wire.PROTOCOL, "0", 1, f"host-{host}", "program"))
    before = _memory()
    began = time.process_time()
    for number in range(scale.instances):
        message = wire.Register(number + 1, f"name-{number % scale.names}", "rpc", instance(number))
        sessions.received(0.0, b"%d" % (number // PER_HOST), message)
    register_us = (time.process_time() - began) / scale.instances * 1e6
    return sessions, register_us, max(0.0, _memory() - before) / scale.instances


def measure(scale: Scale) -> Costs:
    sessions, register_us, memory = filled(scale)
    registry = sessions.registry
    hosts = [b"%d" % host for host in range(scale.hosts)]

    def heartbeats() -> None:
        for number, who in enumerate(hosts):
            for _, answer in sessions.received(1.0, who, wire.Heartbeat(number + 1)):
                wire.encode(answer)

    def ticks() -> None:
        for _ in range(20):
            sessions.tick(1.0)

    def resolves() -> None:
        for number in range(200):
            wire.encode(wire.Resolved(1, registry.resolve(f"name-{number % scale.names}", "rpc")))

    watched = "name-0"
    for who in hosts[: scale.watchers]:
        sessions.received(1.0, who, wire.Resolve(1, watched, "rpc"))
    told = 0

    def changes() -> None:
        nonlocal told
        again = instance(0)
        for turn in range(20):
            answers = sessions.received(1.0, b"0", wire.Register(turn, watched, "rpc", again))
            frames = {id(message): message for _, message in answers}  # a change is one object, and encoded once
            sizes = {key: len(wire.encode(message)) for key, message in frames.items()}
            told = sum(sizes[id(message)] for _, message in answers)

    change_us = microseconds(changes, 20)
    return Costs(
        register_us,
        microseconds(heartbeats, scale.hosts),
        microseconds(ticks, 20),
        microseconds(resolves, 200),
        change_us,
        told,
        microseconds(lambda: _seen(PER_NAME), 20),
        memory,
    )


def _seen(count: int) -> None:
    """A broker that shares the registry is told 20 times that a name of so many instances has changed."""
    registry = SharedRegistry(lease_s=3.0, broker_id="b", limits=LIMITS)
    nodes = [Node(f"i~other.{n}", "rpc", msgspec.structs.replace(instance(n), epoch=n + 1)) for n in range(count)]
    for turn in range(20):
        registry.seen("name", "rpc", count + turn, nodes[turn:])


def _memory() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def loads(scale: Scale, costs: Costs) -> dict[str, tuple[float, float]]:
    """What goes on -> (cores, share of a 1 Gbit/s network) at this size."""
    restarts_s = scale.instances / DEPLOY_S
    return {
        "at rest: heartbeats": ((scale.hosts * costs.heartbeat_us + 4 * costs.tick_us) / 1e6, 0.0),
        "each instance restarts once a day": _changing(2 * scale.instances / 86_400, costs),
        f"all restarted in {DEPLOY_S / 60:.0f} min": _changing(2 * restarts_s, costs),
        "the broker restarts: all register and watch, within 3 s": (
            (scale.instances * costs.register_us + scale.hosts * WATCHED * costs.resolve_us) / 3e6,
            scale.hosts * WATCHED * costs.change_bytes / scale.watchers / 3 / NETWORK_BYTES_PER_S,
        ),
    }


def _changing(changes_s: float, costs: Costs) -> tuple[float, float]:
    return changes_s * costs.change_us / 1e6, changes_s * costs.change_bytes / NETWORK_BYTES_PER_S


def show(scale: Scale) -> None:
    costs = measure(scale)
    print(f"\n{scale.hosts:,} hosts, {scale.instances:,} instances, {scale.names:,} names of {PER_NAME}, "
          f"each watched by {scale.watchers}")  # fmt: skip
    for name, value in (
        ("register an instance", f"{costs.register_us:9.1f} µs"),
        ("a host's heartbeat, answered", f"{costs.heartbeat_us:9.1f} µs"),
        ("tick (4 a second)", f"{costs.tick_us:9.1f} µs"),
        (f"resolve {PER_NAME} instances, encoded", f"{costs.resolve_us:9.1f} µs"),
        ("a change, told to all who watch", f"{costs.change_us:9.1f} µs, {costs.change_bytes / 1024:,.0f} KiB"),
        ("the same in ZooKeeper, another broker's part", f"{costs.seen_us:9.1f} µs"),
        ("memory of an instance", f"{costs.bytes_per_instance:9.0f} bytes"),
    ):
        print(f"  {name:46} {value}")
    print(f"  {'load':56} {'cores':>7} {'network':>8}")
    found = loads(scale, costs)
    for name, (cores, network) in found.items():
        print(f"  {name:56} {cores:7.3f} {network:8.3f}")
    name, (cores, network) = max(found.items(), key=lambda item: max(item[1]))
    what = "the network" if network > cores else "the core"
    print(f"  first to be full: {what}, {name} ({max(cores, network):.2f} of one)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, action="append")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}; {PER_HOST} instances a host, each host watches {WATCHED} names")
    for hosts in options.hosts or SIZES:
        show(Scale(hosts))


if __name__ == "__main__":
    main()
