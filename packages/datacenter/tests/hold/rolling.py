"""Rolling restarts of three instances under full load through both routes: no failed call, no lost call.

    python rolling.py --rounds 5

In each round every instance is replaced once: the new one is started, and when it serves the old one is ended, by
SIGTERM and by `datacenter drain` in turn. Each client has 100 calls in flight all the time, of a method that may not be
repeated: each must be answered, and executed once.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import tempfile
import time
from pathlib import Path

import accounts
from figures import distribution, finish, kinds_at_rest, wait_for, wait_for_kinds

from datacenter.testing import Launcher, Process, RunningService

HERE = Path(__file__).parent
INSTANCES = 3
LATE_S = 0.0
DRAIN_S = 10.0
WAYS = ("SIGTERM", "drain")


class Rolling:
    """The actors, and how long each old instance took to end."""

    def __init__(self, launch: Launcher, folder: Path, routes: list[str], in_flight: int) -> None:
        self.launch = launch
        self.in_flight = in_flight
        self.broker = launch.broker()
        self.instances = [self.start_instance() for _ in range(INSTANCES)]
        self.logs = {route: folder / f"{route}.calls" for route in routes}
        self.clients = {route: self.start_client(route) for route in routes}
        for client in self.clients.values():
            client.wait_line("^loading$", 30.0)
        self.took_s: dict[str, list[float]] = {way: [] for way in WAYS}
        self.replaced = 0
        self.faults: list[str] = []

    def start_instance(self) -> RunningService:
        return self.launch.service("accounted:accounted", self.broker, options=("--drain-s", str(DRAIN_S)))

    def start_client(self, route: str) -> Process:
        words = ("--nap-s", "0.02", "--deadline-s", "20", "20", "--in-flight", str(self.in_flight), "--route", route)
        return self.launch.python("accounting_client.py", self.broker.address, str(self.logs[route]), *words)

    def identity(self, process: Process) -> str:
        listing = self.launch.command("ls", "--json", "--broker", self.broker.address)
        _, found = listing.wait_line("^{.*}$")
        (service,) = json.loads(found[0])["services"]
        self.launch.release(listing)
        return str(next(instance["id"] for instance in service["instances"] if instance["pid"] == process.pid))

    def replace(self, old: RunningService, way: str) -> None:
        self.instances[self.instances.index(old)] = self.start_instance()
        id_ = self.identity(old) if way == "drain" else ""
        time.sleep(random.uniform(0, 0.2))
        began = time.monotonic()
        if way == "drain":
            command = self.launch.command("drain", id_, "--broker", self.broker.address)
            if command.wait(DRAIN_S + 20) != 0:  # it waits for the drain, and has Python to start
                self.faults.append(f"drain: {command.errors}")
            self.launch.release(command)
        else:
            old.signal(signal.SIGTERM)
        status = old.wait(DRAIN_S + 5)
        self.took_s[way].append(time.monotonic() - began)
        if status != 0 or old.errors:
            self.faults.append(f"{way}: an instance ended with {status}: {old.errors[-2000:]}")
        self.launch.release(old)
        self.replaced += 1


def check(rounds: int, routes: list[str], in_flight: int) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        executed = folder / "executed"
        with Launcher(cwd=HERE, environment={"EXECUTIONS": str(executed)}) as launch:
            play = Rolling(launch, folder, routes, in_flight)
            faults = play.faults
            before = {}
            for route, client in play.clients.items():
                accounts.rest(client)
                before[route] = kinds_at_rest(client.pid)
                client.tell("go")
            began = time.monotonic()
            for _ in range(rounds):
                for old in tuple(play.instances):
                    play.replace(old, WAYS[play.replaced % len(WAYS)])
            seconds = time.monotonic() - began
            for route, client in play.clients.items():
                told = accounts.rest(client)
                answered = told["counts"].pop("answered", 0)
                print(f"{route}: {answered} calls answered ({answered / seconds:.0f} a second), others: "
                      f"{told['counts']}, {told['resent']} resent after a loss")  # fmt: skip
                faults += [f"{route}: {count} × {outcome}" for outcome, count in told["counts"].items()]
                faults += accounts.rest_faults(route, told)
                faults += [] if answered > 0 else [f"{route}: no call was answered"]
                after = wait_for_kinds(client.pid, before[route])
                if after != before[route]:
                    faults.append(f"{route}: descriptors {before[route]} before, {after} after")
                client.tell("end")
                wait_for("the client ends", lambda ending=client: not ending.running)  # type: ignore[misc]
            print(f"{rounds * INSTANCES} instances replaced in {seconds:.0f} s")
            for way, took_s in play.took_s.items():
                print(f"an instance ended after {way}: {distribution(took_s)}")
        return faults + accounts.faults(accounts.executions(executed), play.logs.values(), LATE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--in-flight", type=int, default=100, help="calls at a time of each client")
    parser.add_argument("--route", choices=("both", "direct", "relay", "auto"), default="both")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    routes = ["direct", "relay"] if options.route == "both" else [options.route]
    finish(check(options.rounds, routes, options.in_flight))


if __name__ == "__main__":
    main()
