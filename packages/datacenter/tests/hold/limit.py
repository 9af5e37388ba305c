"""Listeners at the descriptor limit: a broker, a service and a relay with 256 descriptors, and 5 000 peers.

    python limit.py --peers 5000 --seconds 15

While the peers try, hold and try again, connections that were there before are served as ever, the process uses less
than a fifth of a core. When the peers have left, new ones are served within 5 s, descriptors are the same by kind,
ledger == /proc. The 99th percentile of the answer times may be twice what is normal: before and after the attack, or at
the same time at a process that is not attacked, whichever is more, since other work on the machine slows both. That
process must answer each call, too: one that does not would excuse everything.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import zmq
from figures import finish, kinds, kinds_at_rest, ledger_faults, wait_for_kinds

from datacenter import wire
from datacenter.testing import Launcher, Process

PROGRAMS = Path(__file__).parent
LIMIT = 256
CLIENTS = 4
PAUSE_S = 0.005
CPU_SHARE = 0.20  # of a core
RECOVERED_S = 5.0
TICKS = os.sysconf("SC_CLK_TCK")


class Target:
    """A listener under attack, and how it is asked."""

    def __init__(self, name: str, address: str, process: Process, ask: Callable[[int], bytes]) -> None:
        self.name = name
        self.address = address
        self.process = process
        self.ask = ask

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Peer:
    """One connection that asks and waits for the answer."""

    numbers = itertools.count((1 << 63) + 1)  # as a relay wants them

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], target: Target) -> None:
        self.target = target
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.reconnect_ivl, self.socket.reconnect_ivl_max = 100, 1000
        self.socket.handshake_ivl = 1000
        self.socket.connect(target.address)
        if target.name == "broker":
            self.socket.send(wire.encode(wire.Hello(wire.PROTOCOL, "0", 1, "host", "limit")))

    def answered(self, wait_s: float) -> float | None:
        """Seconds until the answer, None if there was none."""
        number = next(self.numbers)
        began = time.monotonic()
        self.socket.send(self.target.ask(number))
        while (left := began + wait_s - time.monotonic()) > 0 and self.socket.poll(left * 1000):
            if wire.encode(number) in self.socket.recv_multipart()[-1]:
                return time.monotonic() - began
        return None

    def close(self) -> None:
        self.socket.close()


def measure(peers: list[Peer], seconds: float) -> tuple[list[float], int]:
    """Answer times, and how many had none within 5 s."""
    times: list[float] = []
    lost = 0
    end = time.monotonic() + seconds
    for peer in itertools.cycle(peers):
        took = peer.answered(5.0)
        if took is None:
            lost += 1
        else:
            times.append(took)
        if time.monotonic() > end:
            return times, lost
        time.sleep(PAUSE_S)
    raise AssertionError("not reached")


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98] if len(times) > 1 else float("inf")


def measure_beside(clients: list[Peer], others: list[Peer], seconds: float) -> tuple[list[float], int, list[float]]:
    """Like `measure`, and the answer times of a process that is not attacked, in turn with them."""
    times: list[float] = []
    beside: list[float] = []
    lost = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for client, other in zip(clients, others, strict=True):
            took, control = client.answered(5.0), other.answered(5.0)
            lost += took is None
            times += [] if took is None else [took]
            beside += [] if control is None else [control]
            time.sleep(PAUSE_S)
    return times, lost, beside


def attack(target: Target, control: Target, launcher: Launcher, peers: int, seconds: float) -> list[str]:
    """One target: the faults found."""
    with zmq.Context() as context:
        clients = [Peer(context, target) for _ in range(CLIENTS)]
        others = [Peer(context, control) for _ in range(CLIENTS)]
        measure(clients + others, 1.0)
        before = kinds_at_rest(target.process.pid)
        normal, lost = measure(clients, max(3.0, seconds / 2))
        host, _, port = target.address.removeprefix("tcp://").rpartition(":")
        flood = launcher.python(str(PROGRAMS / "flood.py"), host, port, str(peers))
        os.setpriority(os.PRIO_PROCESS, flood.pid, 19)
        flood.wait_line("^open$", 60.0)
        cpu, began = target.cpu_s(), time.monotonic()
        under, lost_under, beside = measure_beside(clients, others, seconds)
        share = (target.cpu_s() - cpu) / (time.monotonic() - began)
        most = sum(kinds(target.process.pid).values())
        tries = next((line for _, line in reversed(flood.lines) if line.startswith("tries")), "tries ?")
        launcher.release(flood)
        left_at = time.monotonic()
        newcomer = Peer(context, target)
        while newcomer.answered(0.1) is None and time.monotonic() - left_at < 30:
            pass
        recovered = time.monotonic() - left_at
        newcomer.close()
        more, lost_after = measure(clients, max(3.0, seconds / 2))
        normal += more
        lost += lost_after
        after = wait_for_kinds(target.process.pid, before)
        for client in clients + others:
            client.close()
    print(
        f"{target.name}: p99 {p99(normal) * 1e3:.2f} ms before and after, {p99(under) * 1e3:.2f} ms during, "
        f"{p99(beside) * 1e3:.2f} ms beside ({len(under)} calls, {lost_under} unanswered), {tries} of {peers} peers, "
        f"CPU {share:.1%} of a core, {most} of {LIMIT} descriptors, "
        f"recovered in {recovered:.2f} s",
        flush=True,
    )
    faults = [f"{lost} + {lost_under} calls of open connections had no answer"] if lost + lost_under else []
    if not target.process.running:
        return [*faults, f"it ended: {target.process!r} {target.process.errors}"]
    if len(beside) < len(under) + lost_under:
        faults.append(f"the process beside answered {len(beside)} of {len(under) + lost_under} calls")
        beside = normal
    usual = max(p99(normal), p99(beside))
    if p99(under) > 2 * usual:
        faults.append(f"p99 {p99(under):.4f} s, more than twice {usual:.4f} s")
    if share > CPU_SHARE:
        faults.append(f"{share:.0%} of a core")
    if recovered > RECOVERED_S:
        faults.append(f"recovered only after {recovered:.1f} s")
    if after != before:
        faults.append(f"descriptors were {before}, are {after}")
    return [f"{target.name}: {fault}" for fault in faults + ledger_faults(target.process.pid)]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--peers", type=int, default=5000)
    options.add_argument("--seconds", type=float, default=15.0)
    options.add_argument("--only", choices=("broker", "service", "relay"))
    chosen = options.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    faults: list[str] = []
    with Launcher(cwd=PROGRAMS) as launcher:
        broker = launcher.broker()
        service = launcher.service("shop:shop", broker)
        spare = launcher.service("shop:shop", broker)  # is never attacked; the broker would forget peers that pause
        relay = launcher.python(str(PROGRAMS / "relay_front.py"), service.endpoint)
        _, found = relay.wait_line(r"^relay at (\S+)$")

        def call(number: int) -> bytes:
            return wire.encode(wire.OutgoingCall(number, "shop", "add", 5000, (1, 2), {}))

        targets = [
            Target("broker", broker.address, broker, lambda n: wire.encode(wire.Resolve(n, "shop", "rpc", False))),
            Target("service", service.endpoint, service, call),
            Target("relay", found[1], relay, call),
        ]
        control = Target("service beside", spare.endpoint, spare, call)
        for target in targets:
            if chosen.only in (None, target.name):
                resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE, (LIMIT, hard))
                faults += attack(target, control, launcher, chosen.peers, chosen.seconds)
    finish(faults)


if __name__ == "__main__":
    sys.exit(main())
