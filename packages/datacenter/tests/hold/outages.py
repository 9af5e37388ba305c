"""Outages of the service and of the broker: nothing leaks, nothing blocks, and calls are answered again soon.

    python outages.py --service 200 --broker 20

The service is killed (SIGKILL) and started again after a random pause, at its old port or at another one; so is the
broker, at its port. A client calls without pause meanwhile, with a reconnect interval of 10 ms. A naive client runs
beside it, to show that the sampler does see a blocked I/O thread.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from figures import Sampler, distribution, finish, kinds_at_rest, ledger_faults, wait_for_kinds

from datacenter.testing import Launcher, Process, RunningBroker, RunningService, free_port

HERE = Path(__file__).parent
BACK_S = 2.0
BLOCKED_S = 0.5


class Outages:
    """The actors, and what was measured."""

    def __init__(self, launch: Launcher, sampler: Sampler, longest_pause_s: float) -> None:
        self.launch = launch
        self.sampler = sampler
        self.longest_pause_s = longest_pause_s
        self.port = free_port()
        self.broker: RunningBroker = launch.broker(self.port)
        self.service = self.start_service()
        self.client: Process = launch.python(str(HERE / "calling_client.py"), self.broker.address)
        self.said = 0
        self.recoveries: dict[str, list[float]] = {"service": [], "broker": []}
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.answered_by(self.service.pid)
        sampler.watch(self.broker.pid, "broker")
        sampler.watch(self.client.pid, "client")

    def start_service(self, listen: str = "tcp://127.0.0.1:0") -> RunningService:
        service = self.launch.service("shop:shop", self.broker, listen=listen)
        self.sampler.watch(service.pid, "service")
        return service

    def answered_by(self, pid: int) -> float:
        """When the client had its first answer of this instance."""
        at, _ = self.client.wait_line(rf'"instance": {pid}\b', 30.0)
        return at

    def pause(self) -> None:
        time.sleep(random.uniform(0, self.longest_pause_s))

    def take_service_away(self) -> None:
        former = self.service
        former.kill()
        self.pause()
        same_port = random.random() < 0.5
        self.service = self.start_service(former.endpoint if same_port else "tcp://127.0.0.1:0")
        self.recovered("service", self.answered_by(self.service.pid) - self.service.ready_at)
        self.launch.release(former)

    def take_broker_away(self) -> None:
        """The broker is back when a service that starts now is found through it."""
        former = self.broker
        former.kill()
        self.pause()
        self.broker = self.launch.broker(self.port)
        self.sampler.watch(self.broker.pid, "broker")
        self.launch.release(former)
        self.take_service_away()
        self.recoveries["broker"].append(self.recoveries["service"].pop())

    def recovered(self, what: str, seconds: float) -> None:
        self.recoveries[what].append(max(0.0, seconds))
        if seconds > BACK_S:
            self.faults.append(f"answered {seconds:.2f} s after the service said that it serves (at most {BACK_S} s)")

    def rest(self) -> dict[str, Any]:
        """Has the client end its calls; checks how they ended."""
        lines = len(self.client.lines)
        self.client.tell("rest")
        _, found = self.client.wait_line(r'^{"rest": (.*)}$', 30.0, after=lines)
        rest: dict[str, Any] = json.loads(found[1])
        self.counts.update(rest["counts"])
        self.faults += [f"{count} calls ended as {name}" for name, count in rest["counts"].items() if "UNTYPED" in name]
        for what in ("hung", "in_flight", "waiting"):
            if rest[what]:
                self.faults.append(f"{rest[what]} calls {what} at rest")
        if rest["latest_s"] > 0.5:
            self.faults.append(f"a call ended {rest['latest_s']:.2f} s after its deadline")
        return rest


def check(service_outages: int, broker_outages: int, longest_pause_s: float) -> list[str]:
    """Plays the outages, prints the table, returns what did not hold."""
    with Launcher(cwd=HERE) as launch, Sampler() as sampler:
        naive = launch.python(str(HERE / "naive_client.py"), "20")
        naive.wait_line("ready")
        sampler.watch(naive.pid, "naive client")
        play = Outages(launch, sampler, longest_pause_s)
        play.rest()
        before = {
            "client": kinds_at_rest(play.client.pid),
            "broker": kinds_at_rest(play.broker.pid),
            "service": kinds_at_rest(play.service.pid),
        }
        play.client.tell("go")
        began = time.monotonic()
        todo = ["service"] * service_outages + ["broker"] * broker_outages
        random.shuffle(todo)
        for number, what in enumerate(todo, 1):
            play.take_broker_away() if what == "broker" else play.take_service_away()
            if number % 20 == 0:
                print(f"{number} outages, {time.monotonic() - began:.0f} s", flush=True)
        rest = play.rest()
        seconds = time.monotonic() - began
        faults = play.faults
        after = {}
        for name, process in (("client", play.client), ("broker", play.broker), ("service", play.service)):
            after[name] = wait_for_kinds(process.pid, before[name])
            if after[name] != before[name]:
                faults.append(f"{name}: descriptors {before[name]} before, {after[name]} after")
            faults += [f"{name}'s ledger: {fault}" for fault in ledger_faults(process.pid)]
            if process.errors.count("Traceback"):
                faults.append(f"{name} printed a traceback: {process.errors[-2000:]}")
        report(play, sampler, before, after, seconds, rest["latest_s"])
    for name, longest in sampler.longest.items():
        if name != "naive client" and longest > BLOCKED_S:
            faults.append(f"{name}: a libzmq thread stood still for {longest:.1f} s")
    if sampler.longest["naive client"] < 1.0:
        faults.append("the sampler did not see that the naive client's I/O thread is blocked")
    return faults


def report(
    play: Outages,
    sampler: Sampler,
    before: dict[str, dict[str, int]],
    after: dict[str, dict[str, int]],
    seconds: float,
    latest_s: float,
) -> None:
    print(f"{sum(map(len, play.recoveries.values()))} outages in {seconds:.0f} s; calls: {dict(play.counts)}")
    print(f"latest end of a call after its deadline: {max(0.0, latest_s) * 1e3:.0f} ms")
    for what, values in play.recoveries.items():
        print(f"answered again after the return, {what} outages: {distribution(values)}")
    for name in before:
        print(f"descriptors of the {name}: before {before[name]}, after {after[name]}")
    for name, longest in sampler.longest.items():
        print(
            f"{name}: longest standstill of a libzmq thread {longest:.2f} s; "
            f"{sampler.blocked[name]} samples outside epoll"
        )
    print(f"{sampler.samples} samples at 20 Hz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", type=int, default=200, help="outages of the service")
    parser.add_argument("--broker", type=int, default=20, help="outages of the broker")
    parser.add_argument("--pause", type=float, default=1.0, help="longest pause before the restart (seconds)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    finish(check(options.service, options.broker, options.pause))


if __name__ == "__main__":
    main()
