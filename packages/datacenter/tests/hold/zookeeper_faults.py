"""Brokers, instances and clients over real ZooKeeper servers, which are killed, stopped, cut off and lied to about the
time, while everybody writes down what he is told: the history is then checked (history.py), not looked at.

    python zookeeper_faults.py --rounds 3 --servers 3         each round plays every fault once, in random order
    python zookeeper_faults.py --servers 1 --only instance    a sample

Two brokers share the registry. With root one of them is in a network namespace of its own, with clients beside it, and
can be cut off from ZooKeeper and from the other broker. Wall clocks of brokers and instances jump by up to a day, each
second (wall_clock.c).

What must hold: no answer holds an instance whose lease ended more than STALE_S before; versions and epochs never go
back; an instance never answers as owner after anybody was told that its lease is over; CONVERGED_S after each fault
has ended every broker says the same, and it is true; descriptors of all are what they were, ledger == /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from figures import finish, kinds_at_rest, ledger_faults
from history import Answered, Event, Held, Resolved, faults, worst_staleness

from datacenter.testing import Ensemble, Launcher, Process, RunningBroker, namespaces

PROGRAMS = Path(__file__).parent
LEASE_S = 1.0
SESSION_S = 3.0
TICK_S = 0.25
#: an election takes this at most here; then the sessions' time begins anew
ELECTION_S = 4.0
#: docs/zookeeper.md: a session for the broker that died or was cut off, one for what another believes, an election
STALE_S = 2 * SESSION_S + TICK_S + ELECTION_S
CONVERGED_S = SESSION_S + LEASE_S + 8.0
DAY_S = 86_400
#: five programs and the servers start at once; nothing is measured yet
START_S = 60.0
_NEW_NETWORK = 0x40000000


class Cast:
    """All actors, and how they are started."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, servers: int, spaces: namespaces.Namespaces | None):
        here, there = (namespaces.HERE, namespaces.THERE) if spaces else ("127.0.0.1", "127.0.0.1")
        self.spaces = spaces
        self.network = spaces.there if spaces else ""
        self.ensemble = stack.enter_context(Ensemble(folder, servers=servers, hosts=[here] * servers))
        self.clock = WallClock(folder)
        environment = self.clock.environment if self.clock else {}
        self.launch = stack.enter_context(Launcher(cwd=PROGRAMS, environment=environment))
        self._options = (
            *("--registry", self.ensemble.url("/hold"), "--lease-s", str(LEASE_S)),
            *("--zookeeper-session-s", str(SESSION_S)),
        )
        self._hosts = (here, there)
        self.brokers = [self.launch.broker(host=here, options=self._options), self._broker_there(0)]
        both = ",".join(broker.address for broker in self.brokers)
        program = str(PROGRAMS / "owner_service.py")
        self.instances = [self.launch.python(program, both, f"tcp://{here}:0") for _ in range(2)]
        observer = str(PROGRAMS / "owner_observer.py")
        self.observers = [
            self.launch.python(observer, self.brokers[0].address, "asks"),
            self.launch.python(observer, self.brokers[1].address, "asks", network=self.network),
            self.launch.python(observer, both, "calls"),
        ]
        for each in self.instances:
            each.wait_line('"serving"', START_S)

    def _broker_there(self, port: int) -> RunningBroker:
        return self.launch.broker(port, host=self._hosts[1], options=self._options, network=self.network)

    def restart_broker(self, number: int) -> None:
        old = self.brokers[number]
        port = int(old.address.rpartition(":")[2])
        old.kill()
        time.sleep(random.uniform(0, 2 * SESSION_S))
        if number:
            self.brokers[1] = self._broker_there(port)
        else:
            self.brokers[0] = self.launch.broker(port, host=self._hosts[0], options=self._options)

    def ids(self) -> set[str]:
        said = [each.wait_line(r'^{"serving".*}$')[1] for each in self.instances]
        return {json.loads(found[0])["serving"] for found in said}

    def events(self) -> list[Event]:
        lines = [line for each in (*self.instances, *self.observers) for _, line in list(each.lines)]
        return [event for line in lines for event in _event(line)]


class WallClock:
    """The wall clock of all processes that are started with `environment`: it jumps every second."""

    def __init__(self, folder: Path) -> None:
        library, file = folder / "wall_clock.so", folder / "offset"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(PROGRAMS / "wall_clock.c"), "-ldl"], check=True
        )
        file.write_bytes(struct.pack("q", 0))
        with file.open("r+b") as opened:
            self._page = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(file)}
        self.jumps = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            self._page[:] = struct.pack("q", random.choice((0, random.randrange(-DAY_S, DAY_S))))
            self.jumps += 1

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._page.close()


def _event(line: str) -> list[Event]:
    if not line.startswith("{"):
        return []
    said = json.loads(line)
    if "held" in said:
        return [Held(said["held"], said["at"], said["until"])]
    if "resolved" in said:
        return [Resolved(said["resolved"], said["asked"], said["at"], said["version"], said["epochs"])]
    if "answered" in said:
        return [Answered(said["answered"], said["epoch"], said["at"])]
    return []


# --- the faults: each ends with everything up again


def leader_is_killed(cast: Cast) -> None:
    leader = cast.ensemble.leader()
    leader.kill()
    time.sleep(random.uniform(1, 3))
    leader.start()
    cast.ensemble.wait_ready()


def ensemble_is_stopped(cast: Cast) -> None:
    """All servers stand still for longer than a session: nobody can be sure of anything."""
    for server in cast.ensemble.servers:
        server.signal(signal.SIGSTOP)
    time.sleep(SESSION_S * 1.5)
    for server in cast.ensemble.servers:
        server.signal(signal.SIGCONT)
    cast.ensemble.wait_ready()


def instance_is_stopped(cast: Cast) -> None:
    _pause(random.choice(cast.instances), LEASE_S * random.uniform(2, 5))


def broker_is_stopped(cast: Cast) -> None:
    """Beyond its session with ZooKeeper, which expires."""
    _pause(random.choice(cast.brokers), SESSION_S * random.uniform(1.5, 2.5))


def broker_is_killed(cast: Cast) -> None:
    cast.restart_broker(random.randrange(2))


def broker_is_cut_off(cast: Cast) -> None:
    if cast.spaces is None:
        print("  not root: the network is not cut")
        return
    cast.spaces.cut()
    time.sleep(0.2)
    _pause(random.choice(cast.instances), SESSION_S * random.uniform(1.5, 2.5))  # one that it does not see leave
    cast.spaces.mend()


def _pause(process: Process, seconds: float) -> None:
    process.signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.signal(signal.SIGCONT)


FAULTS: dict[str, Callable[[Cast], None]] = {
    "instance": instance_is_stopped,
    "broker stopped": broker_is_stopped,
    "broker killed": broker_is_killed,
    "cut": broker_is_cut_off,
    "leader": leader_is_killed,
    "ensemble": ensemble_is_stopped,
}


def converged(cast: Cast) -> float | None:
    """The seconds until each broker said that exactly the living instances are there, with one version; None: never."""
    began = time.monotonic()
    marks = [len(each.lines) for each in cast.observers]
    while time.monotonic() - began < CONVERGED_S:
        latest = [_latest(each, mark) for each, mark in zip(cast.observers[:2], marks[:2], strict=True)]
        told = [event for event in latest if event is not None]
        same = len(told) == 2 and told[0].version == told[1].version and told[0].epochs == told[1].epochs
        if same and set(told[0].epochs) == cast.ids():
            return time.monotonic() - began
        time.sleep(0.05)
    print(f"  not the same: {latest}, living {cast.ids()}")
    return None


def _latest(observer: Process, after: int) -> Resolved | None:
    for _, line in reversed(list(observer.lines)[after:]):
        for event in _event(line):
            if isinstance(event, Resolved):
                return event
    return None


def play(cast: Cast, rounds: int, names: list[str]) -> list[str]:
    found: list[str] = []
    worst = 0.0
    if converged(cast) is None:
        return ["the brokers did not agree before anything happened"]
    before = _kinds(cast)
    for number in range(rounds):
        for name in random.sample(names, len(names)):
            FAULTS[name](cast)
            seconds = converged(cast)
            print(f"round {number + 1}: {name}: the same and true again after "
                  f"{'never' if seconds is None else f'{seconds:.2f} s'}", flush=True)  # fmt: skip
            if seconds is None:
                found.append(f"{name}: the brokers do not agree {CONVERGED_S:.0f} s afterwards")
            worst = max(worst, seconds or CONVERGED_S)
    found += _accounts(cast, before)
    events = cast.events()
    found += faults(events, stale_s=STALE_S)
    counts = {kind.__name__: sum(isinstance(event, kind) for event in events) for kind in (Held, Resolved, Answered)}
    print(f"history: {counts}, wall clock jumped {cast.clock.jumps} times")
    print(f"longest told after its lease had ended: {worst_staleness(events):.2f} s (bound {STALE_S:.2f} s); "
          f"worst convergence {worst:.2f} s (bound {CONVERGED_S:.2f} s)")  # fmt: skip
    found += [f"no {kind} was written down" for kind, count in counts.items() if not count]
    return found


def _kinds(cast: Cast) -> dict[str, Counter[str]]:
    """Descriptors by kind at rest; those of the brokers together, for sessions move between them."""
    return {
        "brokers": sum((Counter(kinds_at_rest(each.pid)) for each in cast.brokers), Counter()),
        **{f"instance {number}": Counter(kinds_at_rest(each.pid)) for number, each in enumerate(cast.instances)},
    }


def _accounts(cast: Cast, before: dict[str, Counter[str]]) -> list[str]:
    found = []
    end = time.monotonic() + 15.0
    while (after := _kinds(cast)) != before and time.monotonic() < end:
        time.sleep(0.5)
    found += [f"{name}: descriptors {before[name]} before, {after[name]} after"
              for name in before if before[name] != after[name]]  # fmt: skip
    for broker in cast.brokers:  # an instance's event loop is its program's own
        found += [f"{broker!r}'s ledger: {fault}" for fault in ledger_faults(broker.pid)]
    for each in (*cast.brokers, *cast.instances, *cast.observers):
        if "Traceback" in each.errors:
            found.append(f"{each!r} printed a traceback: {each.errors[-2000:]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--only", choices=tuple(FAULTS), action="append")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--history", help="write all that was said to this file")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    random.seed(seed)
    names = options.only or [name for name in FAULTS if options.servers > 1 or name != "leader"]
    print(f"seed {seed}: {', '.join(names)}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        spaces = None
        if os.geteuid() == 0 and "cut" in names:
            spaces = stack.enter_context(namespaces.Namespaces())
            _enter(spaces.here)
        cast = Cast(stack, folder, options.servers, spaces)
        stack.callback(cast.clock.close)
        found = play(cast, options.rounds, names)
        if options.history:
            Path(options.history).write_text("\n".join(map(repr, cast.events())))
    finish(found)


def _enter(network: str) -> None:
    """This thread, and all that is started from now on, lives there: so can everybody be asked."""
    with open(network) as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    main()
