"""16 threads make and end relays of 50 names under traffic: no deadlock, no reply lost to a live client; at rest the
ledger equals /proc, and threads and memory are back at the start.

usage: hold_relays.py [SECONDS]   (300)
"""

from __future__ import annotations

import contextlib
import faulthandler
import random
import sys
import threading
import time
from collections import Counter

import msgspec
import zmq
from relay_peers import FIRST_ID, EchoService, call_frame, wait_until

from datacenter import wire
from datacenter.broker.relay import Relay
from datacenter.broker.relay_manager import RelayManager
from datacenter.errors import ClosedError
from datacenter.sockets import SocketContext, bundles
from datacenter.sockets.ledger import Ledger, open_descriptors

NAMES = [f"service-{number}" for number in range(50)]
STEADY = ["steady-1", "steady-2"]
THREADS = 16
REPLY_S = 10.0


class Run:
    """One run: what was counted and what went wrong."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.longest_stop_s = 0.0
        self.relays = SocketContext("relays")
        self.peers = SocketContext("peers")
        self.manager = RelayManager(self.relays)
        self.services = [EchoService(self.peers) for _ in range(2)]
        self._lock = threading.Lock()

    def note(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.counts[what] += count

    def guarded(self, work: object, *arguments: object) -> None:
        try:
            work(*arguments)  # type: ignore[operator]
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")

    def churn(self, seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < self.end and not self.faults:
            name = chance.choice(NAMES)
            if chance.random() < 0.5:
                report = self.manager.remove(name)
                self.longest_stop_s = max(self.longest_stop_s, report.seconds)
                if not report.clean:
                    self.faults.append(f"{name} did not end: {report}")
                continue
            relay = self.manager.get_or_create(name)
            with contextlib.suppress(ClosedError):  # another thread has ended it meanwhile
                relay.set_instances([service.endpoint for service in self.services])
                self.call(relay, chance.randrange(1, 20))

    def call(self, relay: Relay, count: int) -> None:
        """So many calls; each is answered as long as the relay serves."""
        with self.peers.socket(zmq.DEALER, owner="client", monitored=False) as client:
            client.connect(relay.endpoint)
            for number in range(count):
                client.raw.send(call_frame(number, b"%d" % number))
            left, deadline = set(range(count)), time.monotonic() + REPLY_S
            while left:
                if client.raw.poll(50):
                    self.take(client.raw.recv(), left)
                elif relay.state != "serving":
                    self.note("calls whose relay was ended", len(left))
                    return
                elif time.monotonic() > deadline:
                    self.faults.append(f"{len(left)} of {count} replies did not come: {relay.statistics()}")
                    return
            self.note("calls answered", count)

    def take(self, message: bytes, left: set[int]) -> None:
        """Replies that came together."""
        for frame in bundles.split(message):
            reply = wire.decode_reply(frame)
            assert isinstance(reply, wire.Result)
            number = reply.id - FIRST_ID
            if number not in left or msgspec.msgpack.decode(reply.body) != b"%d" % number:
                self.faults.append(f"a reply that nobody asked for: {number}")
            left.discard(number)

    def steady(self, name: str) -> None:
        """A client that lives as long as the run, at a relay that nobody ends."""
        relay = self.manager.get_or_create(name)
        relay.set_instances([service.endpoint for service in self.services])
        with self.peers.socket(zmq.DEALER, owner="steady client") as client:
            client.connect(relay.endpoint)
            while time.monotonic() < self.end and not self.faults:
                for number in range(20):
                    client.raw.send(call_frame(number, b"%d" % number))
                left = set(range(20))
                while left:
                    if not client.raw.poll(int(REPLY_S * 1000)):
                        self.faults.append(f"the steady client of {name} lost {len(left)} of 20 replies")
                        return
                    self.take(client.raw.recv(), left)
                self.note("calls answered at the relays that stay", 20)

    def play(self) -> None:
        threads = [
            threading.Thread(target=self.guarded, args=(self.churn, seed), daemon=True) for seed in range(THREADS)
        ]
        threads += [threading.Thread(target=self.guarded, args=(self.steady, name), daemon=True) for name in STEADY]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, self.end - time.monotonic()) + 3 * REPLY_S)
            if thread.is_alive():
                self.faults.append(f"deadlock: {thread.name} has not ended; {self.manager!r}")
                faulthandler.dump_traceback(sys.stdout)
                return
        told = self.manager.statistics()
        self.counts["relays made"], self.counts["relays ended"] = told.made, told.ended
        for service in self.services:
            service.close()
        self.finish()

    def finish(self) -> None:
        report = self.manager.close(5.0)
        if not report.clean or self.relays.statistics().sockets:  # before the context's end would hide them
            self.faults.append(f"relays are left: {report.still_open}, {self.relays!r}")
        for part in (self.peers, self.relays):
            report = part.close(5.0)
            if not report.clean:
                self.faults.append(f"{part!r}: still open: {report.still_open}")


def resident_kib() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def main(seconds: float) -> int:
    faulthandler.enable()
    ledger = Ledger.open()
    before, threads = open_descriptors(), threading.active_count()
    warm = Run(min(2.0, seconds / 4))
    warm.play()
    memory = resident_kib()
    run = Run(seconds)
    run.play()
    faults = warm.faults + run.faults
    if not faults:
        try:
            wait_until(lambda: threading.active_count() == threads, f"threads: {threading.enumerate()}")
            wait_until(lambda: not ledger.unexplained(before), "the ledger equals /proc")
        except AssertionError as error:
            faults.append(f"{error}: {ledger.unexplained(before)}")
    grown = resident_kib() - memory
    if grown > 30_000:
        faults.append(f"memory grew by {grown} KiB")
    for what, count in sorted(run.counts.items()):
        print(f"{what}: {count}")
    print(f"longest stop: {run.longest_stop_s * 1000:.1f} ms; memory: {grown:+d} KiB; ledger exact: {ledger.exact}")
    for fault in faults:
        print(f"FAULT: {fault}")
    print("does NOT hold" if faults else "holds")
    ledger.close()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 300.0))
