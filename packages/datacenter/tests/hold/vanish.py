"""Instances that vanish without a FIN leave the registry in time, and their callers get an answer or a typed error by
the deadline.

    python vanish.py stopped --rounds 10        SIGSTOP, later SIGCONT
    python vanish.py cut --rounds 10            the link of the service's network namespace is cut and mended (needs
    root)

Two instances: one vanishes, the other stays (it shows that calls go on). Then it comes back and serves again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from figures import distribution, finish, kinds_at_rest, ledger_faults, wait_for_kinds

from datacenter.testing import Launcher, Process, namespaces

PROGRAMS = Path(__file__).parent
HEARTBEATS_S = 3.0
TICK_S = 0.25
LATE_S = 0.5  # what a busy machine may add
BACK_S = 10.0


class Vanishing:
    """The actors, and what was measured."""

    def __init__(self, launch: Launcher, cut: bool, spaces: namespaces.Namespaces | None) -> None:
        host, there = (namespaces.HERE, namespaces.THERE) if cut else ("127.0.0.1", "127.0.0.1")
        network = spaces.there if spaces else ""
        self.faults: list[str] = []
        self.gone_s: list[float] = []
        self.back_s: list[float] = []
        self.broker = launch.broker(host=host)
        self.steady = launch.service("shop:shop", self.broker, listen=f"tcp://{host}:0")
        self.vanishing = launch.service("shop:shop", self.broker, listen=f"tcp://{there}:0", network=network)
        self.watcher = launch.python(str(PROGRAMS / "registry_watcher.py"), self.broker.address, "shop")
        self.client = launch.python(str(PROGRAMS / "calling_client.py"), self.broker.address)
        self.registered(lambda pids: self.vanishing.pid in pids and self.steady.pid in pids, 0)
        self.client.wait_line(rf'"instance": {self.vanishing.pid}\b', 20.0)

    def actors(self) -> dict[str, Process]:
        return {"broker": self.broker, "client": self.client, "steady": self.steady, "vanishing": self.vanishing}

    def registered(self, wanted: Callable[[list[int]], bool], after: int, deadline_s: float = BACK_S) -> float:
        """When the watcher was told of instances that are `wanted`."""
        limit = time.monotonic() + deadline_s
        while True:
            at, found = self.watcher.wait_line(r"^{.*}$", max(0.01, limit - time.monotonic()), after=after)
            after = next(number for number, (when, _) in enumerate(self.watcher.lines) if when == at) + 1
            told = json.loads(found[0])
            if wanted(told["pids"]):
                return float(told["at"])

    def rest(self) -> dict[str, int]:
        lines = len(self.client.lines)
        self.client.tell("rest")
        _, found = self.client.wait_line(r'^{"rest": (.*)}$', 30.0, after=lines)
        rest = json.loads(found[1])
        self.faults += [f"{n} calls ended as {name}" for name, n in rest["counts"].items() if "UNTYPED" in name]
        self.faults += [f"{rest[what]} calls {what} at rest" for what in ("hung", "in_flight", "waiting") if rest[what]]
        if rest["latest_s"] > LATE_S:
            self.faults.append(f"a call ended {rest['latest_s']:.2f} s after its deadline")
        return dict(rest["counts"])

    def round(self, vanish: Callable[[], None], come_back: Callable[[], None]) -> dict[str, int]:
        time.sleep(random.uniform(0, 1))
        lines = len(self.watcher.lines)
        at = time.monotonic()
        vanish()
        gone_s = self.registered(lambda pids: self.vanishing.pid not in pids, lines) - at
        self.gone_s.append(gone_s)
        if gone_s > HEARTBEATS_S + TICK_S + LATE_S:
            self.faults.append(f"out of the registry after {gone_s:.2f} s")
        during = self.rest()
        self.client.tell("go")
        time.sleep(0.5)
        apart = self.rest()  # it has left the registry: from now on every call must be answered, by the other instance
        if set(apart) != {"answered"}:
            self.faults.append(f"calls after it had left the registry: {apart}")
        self.client.tell("go")
        lines, said = len(self.watcher.lines), len(self.client.lines)
        at = time.monotonic()
        come_back()
        self.registered(lambda pids: self.vanishing.pid in pids, lines, 20.0)
        answered, _ = self.client.wait_line(rf'"instance": {self.vanishing.pid}\b', 20.0, after=said)
        self.back_s.append(answered - at)
        if answered - at > BACK_S:
            self.faults.append(f"serves again only {answered - at:.1f} s after it came back")
        return during


def check(way: str, rounds: int) -> list[str]:
    """Plays `rounds`, prints the table, returns what did not hold."""
    cut = way == "cut"
    with contextlib.ExitStack() as stack:
        spaces = stack.enter_context(namespaces.Namespaces()) if cut else None
        launch = stack.enter_context(Launcher(cwd=PROGRAMS, network=spaces.here if spaces else ""))
        play = Vanishing(launch, cut, spaces)
        vanish: Callable[[], None] = partial(play.vanishing.signal, signal.SIGSTOP)
        come_back: Callable[[], None] = partial(play.vanishing.signal, signal.SIGCONT)
        if spaces:
            vanish, come_back = spaces.cut, spaces.mend
        play.rest()
        before = {name: kinds_at_rest(process.pid) for name, process in play.actors().items()}
        for number in range(rounds):
            play.client.tell("go")
            during = play.round(vanish, come_back)
            print(f"round {number + 1}: calls until it had left {during}, gone after {play.gone_s[-1]:.2f} s, "
                  f"serves again after {play.back_s[-1]:.2f} s", flush=True)  # fmt: skip
            play.rest()
        for name, process in play.actors().items():
            after = wait_for_kinds(process.pid, before[name])
            print(f"descriptors of {name}: before {before[name]}, after {after}")
            if after != before[name]:
                play.faults.append(f"{name}: descriptors {before[name]} before, {after} after")
            play.faults += [f"{name}'s ledger: {fault}" for fault in ledger_faults(process.pid)]
            if "Traceback" in process.errors:
                play.faults.append(f"{name} printed a traceback: {process.errors[-2000:]}")
        print(f"out of the registry: {distribution(play.gone_s)}")
        print(f"serves again: {distribution(play.back_s)}")
    return play.faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=("stopped", "cut"))
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    finish(check(options.way, options.rounds))


if __name__ == "__main__":
    main()
