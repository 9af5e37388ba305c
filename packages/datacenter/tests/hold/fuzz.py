"""Random frames and byte streams at the broker's and a service's endpoint: nothing dies, nothing leaks, calls go on.

    python fuzz.py --frames 100000

Each endpoint gets so many frames through ZeroMQ, some in bundles (right, cut, lying, in one another), some of them in
messages of 1, 3 or 50 frames too many, and a hundredth as many raw TCP connections. In between a client calls and must
get right answers. Then: a client that does not read its replies, and peers that connect and vanish. Afterwards
descriptors are the same by kind, ledger == /proc, and memory has stayed within its bound.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import garbage
import zmq
from figures import finish, kinds_at_rest, ledger_faults, resident_kib, wait_for_kinds

from datacenter import Client, wire
from datacenter.testing import Launcher, Process

PROGRAMS = Path(__file__).parent
GROWTH_KIB = (
    64 * 1024
)  # registry, watches, outbox and allocator may take so much; a leak of 100 000 frames would take more
BURST = 500


class Target:
    """An endpoint under fire and what must stay as it is."""

    def __init__(self, name: str, address: str, process: Process, message: Callable[[], Any]) -> None:
        self.name = name
        self.address = address
        self.process = process
        self.message = message
        self.kinds = kinds_at_rest(process.pid)
        self.resident_kib = resident_kib(process.pid)
        self.replies = 0

    @property
    def host_port(self) -> tuple[str, int]:
        host, _, port = self.address.removeprefix("tcp://").rpartition(":")
        return host, int(port)


def throw(target: Target, context: zmq.Context[Any], count: int) -> None:
    """`count` frames from one peer, as fast as they are taken; what comes back is read and counted."""
    with context.socket(zmq.DEALER) as peer:
        peer.linger = 1000
        peer.sndtimeo = 10_000
        peer.connect(target.address)
        if random.random() < 0.7 and target.name == "broker":
            peer.send(wire.encode(wire.Hello(wire.PROTOCOL, "0", 1, "host", "fuzz")))
        for _ in range(count):
            frames = [garbage.bundle(target.message) if random.random() < 0.1 else garbage.frame(target.message)]
            if random.random() < 0.05:
                frames += [garbage.frame(target.message)[:100] for _ in range(random.choice([1, 3, 50]))]
            peer.send_multipart(frames)
            while peer.poll(0):
                peer.recv_multipart()
                target.replies += 1
        target.replies += last_word(target, peer)


def last_word(target: Target, peer: zmq.Socket[bytes]) -> int:
    """Asks something good on the same connection and waits for its answer, so that all before has been dealt with.

    Returns how many other messages came first.
    """
    magic = random.randrange(1 << 40, 1 << 41)
    if target.name == "broker":
        peer.send(wire.encode(wire.Hello(wire.PROTOCOL, "0", 1, "host", "fuzz")))
        peer.send(wire.encode(wire.Resolve(magic, "shop", "rpc", False)))
        wanted = wire.encode(magic)
    else:
        peer.send(wire.encode(wire.OutgoingCall(magic, "shop", "add", 1000, (1, 2), {})))
        wanted = wire.encode(magic)
    others = 0
    while peer.poll(10_000):
        if wanted in peer.recv_multipart()[-1]:
            return others
        others += 1
    raise AssertionError(f"{target.name} did not answer a good message on a connection that had sent bad ones")


def raw_connections(target: Target, count: int) -> None:
    """Connections that send what is not ZMTP, or half of it; ended by FIN or by RST, or held open for a while."""
    held: list[socket.socket] = []
    for _ in range(count):
        connection = socket.create_connection(target.host_port, 5)
        connection.settimeout(0.2)
        try:
            connection.sendall(garbage.stream())
            if random.random() < 0.2:
                connection.recv(100)
        except OSError:
            pass
        way = random.randrange(3)
        if way == 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if way == 1 and len(held) < 50:
            held.append(connection)
        else:
            connection.close()
    for connection in held:
        connection.close()


def half_open(target: Target, count: int) -> float:
    """`count` connections that never shake hands, held until the other side has dropped all: the seconds that took."""
    connections = [socket.create_connection(target.host_port, 5) for _ in range(count)]
    began = time.monotonic()
    for number, connection in enumerate(connections):
        connection.sendall(garbage._GREETING[: number % 64])
        connection.settimeout(15)
    for connection in connections:
        try:
            while connection.recv(100):
                pass
        except ConnectionError:
            pass
        connection.close()
    return time.monotonic() - began


def vanishing_peers(target: Target, context: zmq.Context[Any], count: int) -> None:
    """Peers that connect, say one good thing and vanish."""
    for _ in range(count):
        with context.socket(zmq.DEALER) as peer:
            peer.linger = random.choice([0, 0, 100])
            peer.connect(target.address)
            good = wire.Hello(wire.PROTOCOL, "0", 1, "host", "fuzz") if target.name == "broker" else garbage.call()
            peer.send(wire.encode(good))
            if random.random() < 0.3:
                peer.poll(50)


def slow_reader(target: Target, context: zmq.Context[Any], client: Client, calls: int, seconds: float) -> str:
    """A peer that sends `calls` calls of 10 KB and reads no reply. Others must be answered meanwhile, and quickly."""
    with context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.rcvhwm = 10
        peer.sndhwm = 0
        peer.rcvbuf = 10_000
        peer.connect(target.address)
        body = bytes(10_000)
        for number in range(calls):
            peer.send(wire.encode(wire.OutgoingCall(number, "shop", "echo", 60_000, (body,), {})))
        slowest, answered = 0.0, 0
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            began = time.monotonic()
            try:
                answered += client.call("shop.add", 1, 2, deadline_s=3.0) == 3
            except Exception as error:
                return f"beside a client that does not read, another one's call: {error!r}"
            slowest = max(slowest, time.monotonic() - began)
        print(f"slow reader: {calls} replies unread; beside it {answered} calls, slowest {slowest * 1e3:.0f} ms; "
              f"resident {resident_kib(target.process.pid) // 1024} MiB")  # fmt: skip
    return ""


def still_right(client: Client, target: Target) -> None:
    """The service answers, and right; raises what the client raises."""
    number = random.randrange(1000)
    answer = client.call("shop.add", number, b=2, deadline_s=10, returns=int)
    if answer != number + 2:
        raise AssertionError(f"{target.name}: {number} + 2 = {answer}")


def after(target: Target, bound_kib: int) -> list[str]:
    """What is not as it was."""
    now = wait_for_kinds(target.process.pid, target.kinds, 20)
    grown = resident_kib(target.process.pid) - target.resident_kib
    print(
        f"{target.name}: {target.replies} replies; resident {grown:+} KiB; "
        f"descriptors before {target.kinds}, after {now}"
    )
    faults = [] if now == target.kinds else [f"{target.name}: descriptors {target.kinds} before, {now} after"]
    if grown > bound_kib:
        faults.append(f"{target.name}: {grown} KiB more memory")
    faults += [f"{target.name}'s ledger: {fault}" for fault in ledger_faults(target.process.pid)]
    if "Traceback" in target.process.errors:
        faults.append(f"{target.name} printed a traceback: {target.process.errors[-3000:]}")
    return faults


def fire(target: Target, context: zmq.Context[Any], client: Client, frames: int, peers: int) -> list[str]:
    """Everything at one endpoint."""
    began = time.monotonic()
    for _ in range(0, frames, BURST):
        throw(target, context, min(BURST, frames))
        still_right(client, target)
    print(f"{target.name}: {frames} frames in {time.monotonic() - began:.0f} s", flush=True)
    raw_connections(target, max(50, frames // 100))
    still_right(client, target)
    vanishing_peers(target, context, peers)
    still_right(client, target)
    return after(target, GROWTH_KIB)


def check(frames: int, peers: int, unread: int, calm_s: float) -> list[str]:
    """Plays everything, prints figures, returns what did not hold."""
    faults = []
    with Launcher(cwd=PROGRAMS) as launch, zmq.Context() as context:
        broker = launch.broker()
        service = launch.service("shop:shop", broker)
        with Client(broker.address) as client:
            client.call("shop.pid")
            targets = [
                Target("broker", broker.address, broker, garbage.control),
                Target("service", service.endpoint, service, garbage.call),
            ]
            for target in targets:
                try:
                    faults += fire(target, context, client, frames, peers)
                except Exception as error:
                    faults.append(
                        f"{target.name}: {error!r}; it runs: {target.process.running}; {target.process.errors[-3000:]}"
                    )
            if peers >= 500:
                for target in targets:
                    print(
                        f"{target.name}: 50 half-open handshakes dropped after {half_open(target, 50):.1f} s",
                        flush=True,
                    )
            fault = slow_reader(targets[1], context, client, unread, calm_s)
            faults += [fault] if fault else []
            faults += after(targets[1], 512 * 1024)
            still_right(client, targets[1])
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="at each endpoint")
    parser.add_argument("--peers", type=int, default=500, help="that connect and vanish")
    parser.add_argument("--unread", type=int, default=10_000, help="replies that a client does not read")
    parser.add_argument("--calm", type=float, default=6.0, help="seconds for which others call beside it")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    finish(check(options.frames, options.peers, options.unread, options.calm))


if __name__ == "__main__":
    main()
