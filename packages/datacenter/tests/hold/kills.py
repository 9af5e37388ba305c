"""Kill -9 of an instance, of the broker, or of both, at any moment, under load through both routes.

    python kills.py --kills 500

Each call ends exactly once by its deadline, with its result or the right error; none that may not be repeated is
executed twice. What the clients say of their calls is checked against what the services say that they executed.
The broker takes its relays with it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import accounts
from figures import finish, kinds_at_rest, ledger_faults, wait_for_kinds

from datacenter.testing import Launcher, Process, RunningBroker, RunningService, free_port

HERE = Path(__file__).parent
INSTANCES = 3
LATE_S = 0.5
LONGEST_PAUSE_S = 0.3
TARGETS = ("instance", "broker", "both")


class Kills:
    """The actors, and what was done to them."""

    def __init__(self, launch: Launcher, folder: Path, routes: list[str]) -> None:
        self.launch = launch
        self.port = free_port()
        self.counts: Counter[str] = Counter()
        self.broker: RunningBroker = launch.broker(self.port)
        self.instances = [self.start_instance() for _ in range(INSTANCES)]
        self.serving()
        self.logs = {route: folder / f"{route}.calls" for route in routes}
        self.clients = {route: self.start_client(route) for route in routes}
        for client in self.clients.values():
            client.wait_line("^loading$", 30.0)

    def start_instance(self, listen: str = "tcp://127.0.0.1:0") -> RunningService:
        service = self.launch.start_service("accounted:accounted", self.broker, listen=listen)
        service.endpoint = listen
        return service

    def start_client(self, route: str) -> Process:
        words = ("--nap-s", "0.05", "--deadline-s", "0.3", "3", "--methods", "once", "again", "--route", route)
        return self.launch.python("accounting_client.py", self.broker.address, str(self.logs[route]), *words)

    def kill(self, what: str) -> None:
        """Kills, and starts again what was killed, in any order, after any pause."""
        time.sleep(random.uniform(0, LONGEST_PAUSE_S))
        victim = random.choice(self.instances) if what != "broker" else None
        former = self.broker if what != "instance" else None
        for process in random.sample([process for process in (victim, former) if process], k=(what == "both") + 1):
            process.kill()
        if random.random() < 0.5:
            time.sleep(random.uniform(0, LONGEST_PAUSE_S))
        if former:
            self.broker = self.launch.broker(self.port)
            self.launch.release(former)
        if victim:
            self.instances.remove(victim)
            self.instances.append(self.start_instance())
            self.launch.release(victim)
        self.counts[what] += 1
        if random.random() < 0.5:  # else the next one comes while it recovers from this one
            self.calls_go_on()

    def calls_go_on(self) -> None:
        """Until each client had an answer to a call that it made after this was asked."""
        lines = {route: len(client.lines) for route, client in self.clients.items()}
        for client in self.clients.values():
            client.tell("next")
        for route, client in self.clients.items():
            client.wait_line("^next$", 30.0, after=lines[route])

    def serving(self) -> None:
        """Until every instance is registered."""
        for instance in self.instances:
            instance.wait_line("^serving accounted at", 30.0)


def check(kills: int, routes: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        executed = folder / "executed"
        with Launcher(cwd=HERE, environment={"EXECUTIONS": str(executed)}) as launch:
            play = Kills(launch, folder, routes)
            faults: list[str] = []
            before = {}
            for route, client in play.clients.items():
                accounts.rest(client)
                before[route] = (
                    kinds_at_rest(client.pid),
                    ledger_faults(client.pid),
                )  # its loop is its own, in no ledger
                client.tell("go")
            began = time.monotonic()
            for number in range(kills):
                play.kill(TARGETS[number % len(TARGETS)])
                if (number + 1) % 50 == 0:
                    print(f"{number + 1} kills, {time.monotonic() - began:.0f} s", flush=True)
            play.serving()
            for route, client in play.clients.items():
                faults += _look(route, client, before[route])
                client.tell("end")
                if client.wait() != 0 or client.errors:
                    faults.append(f"{route}: the client said {client.errors[-2000:]}")
            for process in (*play.instances, play.broker):
                process.end()  # no execution comes after the logs were read
            print(f"{kills} kills in {time.monotonic() - began:.0f} s: {dict(play.counts)}")
        found = accounts.executions(executed)
        twice = sum(len(pids) > 1 for pids in found.values())
        print(f"{sum(map(len, found.values()))} executions of {len(found)} calls, {twice} (idempotent) more than once")
        return faults + accounts.faults(found, play.logs.values(), LATE_S)


def _look(route: str, client: Process, before: tuple[dict[str, int], list[str]]) -> list[str]:
    """How its calls ended since the start; what is wrong with it now."""
    told = accounts.rest(client)
    print(f"{route}: {told['counts']}, {told['resent']} resent, latest end {told['latest_s'] * 1e3:.0f} ms after its "
          "deadline")  # fmt: skip
    faults = accounts.rest_faults(route, told)
    after = wait_for_kinds(client.pid, before[0])
    print(f"{route}: descriptors before {before[0]}, after {after}")
    if after != before[0]:
        faults.append(f"{route}: descriptors {before[0]} before, {after} after")
    return faults + [f"{route}'s ledger: {fault}" for fault in ledger_faults(client.pid) if fault not in before[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--route", choices=("both", "direct", "relay", "auto"), default="both")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    finish(check(options.kills, ["direct", "relay"] if options.route == "both" else [options.route]))


if __name__ == "__main__":
    main()
