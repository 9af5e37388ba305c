"""Kill -9 of each worker, of the watcher and of the fork server of a prefork family, under load through both routes.

    python prefork_kills.py --kills 100

Each is killed that many times, the fork server a quarter as often (it begins with an interpreter). Each call ends
exactly once, as kills.py has it; a killed watcher or fork server costs no call, and leakline finds nothing in the
others meanwhile; no worker, at no moment that is looked at, has a connection to the broker; nobody has more descriptors
afterwards than before. At last the supervisor is killed, and all end.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import accounts
from figures import Doctor, distribution, finish, kinds, kinds_at_rest, ledger_faults, wait_for, wait_for_kinds

from datacenter.testing import Launcher, Process, family_of, named
from leakline import proc
from leakline.errors import LeaklineError
from said import said

HERE = Path(__file__).parent
WORKERS = 2
LATE_S = 0.5
DRAIN_S = 2.0
TARGETS = (*(f"worker-{number + 1}" for number in range(WORKERS)), "watcher", "fork-server")
#: a kill of these loses no call
HARMLESS = ("watcher", "fork-server")
BACK_S = 30.0
LOOK_S = 5.0


class Family:
    """The actors, and what was done to them."""

    def __init__(self, launch: Launcher, folder: Path, routes: list[str]) -> None:
        self.launch = launch
        self.broker = launch.broker()
        self.port = int(self.broker.address.rpartition(":")[2])
        options = ("--workers", str(WORKERS), "--drain-s", str(DRAIN_S))
        # Two interpreters start one after the other before a worker is forked: on a busy machine that takes its time.
        self.supervisor = launch.service("accounted:accounted", self.broker, options=options, ready_s=60.0)
        self.logs = {route: folder / f"{route}.calls" for route in routes}
        self.clients = {route: self.start_client(route) for route in routes}
        for client in self.clients.values():
            client.wait_line("^loading$", 30.0)
        self.kills: Counter[str] = Counter()
        self.back_s: dict[str, list[float]] = {target: [] for target in TARGETS}
        self.looks = 0
        self.faults: list[str] = []

    def start_client(self, route: str) -> Process:
        words = ("--nap-s", "0.02", "--deadline-s", "10", "10", "--methods", "once", "again", "--route", route)
        return self.launch.python("accounting_client.py", self.broker.address, str(self.logs[route]), *words)

    def pid(self, name: str) -> int:
        wait_for(f"there is one {name}", lambda: named(self.supervisor.pid, name) != 0, BACK_S)
        return named(self.supervisor.pid, name)

    def kill(self, name: str) -> None:
        """Kills it, and waits until another one does its work, and each client had an answer after that."""
        former = self.pid(name)
        began = time.monotonic()
        os.kill(former, signal.SIGKILL)
        wait_for(f"another {name}", lambda: named(self.supervisor.pid, name) not in (0, former), BACK_S)
        if name in HARMLESS:
            self.calls_go_on()
        else:
            self.reached(self.pid(name))
        self.back_s[name].append(time.monotonic() - began)
        self.kills[name] += 1
        self.look()

    def calls_go_on(self) -> None:
        lines = {route: len(client.lines) for route, client in self.clients.items()}
        for client in self.clients.values():
            client.tell("next")
        for route, client in self.clients.items():
            client.wait_line("^next$", BACK_S, after=lines[route])

    def reached(self, pid: int) -> None:
        """Until a client is connected to this worker: so it is registered."""
        wait_for(f"clients are connected to {pid}", lambda: _accepted(pid) > 0, BACK_S)

    def look(self) -> None:
        """Who has connections to the broker now."""
        for relative in family_of(self.supervisor.pid):
            if relative.name != "watcher":
                self.looks += 1
                count = self.to_broker(relative.pid)
                if count:
                    self.faults.append(f"{relative.name} has {count} connections to the broker")
        if self.to_broker(self.supervisor.pid):
            self.faults.append("the supervisor has a connection to the broker")

    def to_broker(self, pid: int) -> int:
        try:
            found = proc.snapshot(pid, threads=False, libraries=False).descriptors
        except LeaklineError:  # gone
            return 0
        sockets = (each.socket for each in found)
        return sum(each is not None and each.remote is not None and each.remote.port == self.port for each in sockets)

    def everybody(self) -> dict[str, int]:
        return {"supervisor": self.supervisor.pid, **{name: self.pid(name) for name in TARGETS}}

    def rest(self) -> dict[str, dict[str, object]]:
        """Has the clients end their calls; what they say."""
        return {route: accounts.rest(client) for route, client in self.clients.items()}

    def go(self) -> None:
        for client in self.clients.values():
            client.tell("go")


def _accepted(pid: int) -> int:
    """How many connections a process has accepted."""
    try:
        found = proc.snapshot(pid, threads=False, libraries=False).descriptors
    except LeaklineError:
        return 0
    return sum(each.socket is not None and each.socket.role == "accepted" for each in found)


def _kills(play: Family, kills: int) -> None:
    """First those that cost nothing, then the others, among which they come too."""
    began = time.monotonic()
    play.go()
    living = {name: pid for name, pid in play.everybody().items() if name not in HARMLESS}
    with Doctor(living, LOOK_S) as doctor:
        for _ in range(max(1, kills // 4)):
            for name in HARMLESS:
                play.kill(name)
    print(f"leakline looked {doctor.looks} times for {LOOK_S:g} s at {', '.join(living)}")
    play.faults += doctor.faults
    for route, told in play.rest().items():
        counts = dict(told["counts"])  # type: ignore[call-overload]
        print(f"{route}, watcher and fork server killed {sum(play.kills.values())} times: {counts}")
        play.faults += [f"{route}: {count} × {what}" for what, count in counts.items() if what != "answered"]
    play.go()
    while left := [name for name in TARGETS if name != "fork-server" and play.kills[name] < kills]:
        play.kill(random.choice(left))
        if sum(play.kills.values()) % 40 == 0:
            print(f"{dict(play.kills)}, {time.monotonic() - began:.0f} s", flush=True)
    print(
        f"{sum(play.kills.values())} kills in {time.monotonic() - began:.0f} s: {dict(play.kills)}, {play.looks} looks"
    )
    for name, back_s in play.back_s.items():
        print(f"{name} was back after {distribution(back_s)}")


def _descriptors(play: Family, before: dict[str, dict[str, int]]) -> list[str]:
    faults = []
    for name, pid in play.everybody().items():
        after = wait_for_kinds(pid, before[name])
        print(f"{name}: descriptors before {before[name]}, after {after}")
        if after != before[name]:
            faults.append(f"{name}: descriptors {before[name]} before, {after} after")
        if name != "fork-server":  # it opens nothing, and keeps no ledger
            faults += [f"{name}'s ledger: {fault}" for fault in ledger_faults(pid)]
    return faults


def _end(play: Family) -> list[str]:
    """The supervisor is killed: all end, and the registry knows nobody."""
    pids = [relative.pid for relative in family_of(play.supervisor.pid)]
    began = time.monotonic()
    play.supervisor.kill()
    wait_for("all have ended", lambda: not any(_lives(pid) for pid in pids), DRAIN_S + 10)
    took_s = time.monotonic() - began
    print(f"after kill -9 of the supervisor all had ended in {took_s:.2f} s")
    return []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def check(kills: int, routes: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        executed = folder / "executed"
        with Launcher(cwd=HERE, environment={"EXECUTIONS": str(executed)}) as launch:
            play = Family(launch, folder, routes)
            play.rest()
            before = {name: kinds_at_rest(pid) for name, pid in play.everybody().items()}
            _kills(play, kills)
            for route, told in play.rest().items():
                print(f"{route}: {told['counts']}, {told['resent']} resent, longest answered {told['longest_s']:.2f} s")
                play.faults += accounts.rest_faults(route, told) + accounts.too_late(told, executed)
            faults = play.faults + _descriptors(play, before)
            faults += _end(play)
            for client in play.clients.values():
                client.tell("end")
                if client.wait() != 0 or said(client.errors):
                    faults.append(f"a client said {said(client.errors)[-2000:]}")
            print(f"broker at the end: {kinds(play.broker.pid)}")
        return faults + accounts.faults(accounts.executions(executed), play.logs.values(), LATE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of each worker and the watcher")
    parser.add_argument("--route", choices=("both", "direct", "relay", "auto"), default="both")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    finish(check(options.kills, ["direct", "relay"] if options.route == "both" else [options.route]))


if __name__ == "__main__":
    main()
