"""Services on one host, clients on a second, the broker on a third: cut off and joined again, in good and bad weather.

    python hosts.py --rounds 3      (as root: hosts are network namespaces, each with an address of its own)

What must hold: every call ends by its deadline, with an answer or a typed error; while the broker's host is cut off
calls go on; BACK_S after a host is joined again calls are answered; descriptors are what they were, ledger == /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

from figures import finish, kinds_at_rest, ledger_faults, wait_for_kinds

from datacenter.testing import Launcher, Process
from datacenter.testing.hosts import Hosts

PROGRAMS = Path(__file__).parent
LEASE_S = 3.0
BACK_S = 15.0  # a lease, the longest pauses, and TCP's retransmissions after a cut of CUT_S
CUT_S = 5.0
LATE_S = 0.75
WEATHERS = {
    "good": {},
    "bad (20 to 30 ms a way, 2 % lost)": {"delay_s": 0.02, "jitter_s": 0.01, "loss": 0.02},
}


class Play:
    def __init__(self, hosts: Hosts, launch: Launcher) -> None:
        self.hosts = hosts
        self.faults: list[str] = []
        self.back_s: list[float] = []
        there = {name: hosts.network(name) for name in hosts.names}
        free = ("--insecure",)
        self.broker = launch.broker(7700, host=hosts.address("broker"), options=free, network=there["broker"])
        self.service = launch.service(
            "shop:shop", self.broker, listen=f"tcp://{hosts.address('services')}:0", options=free,
            network=there["services"],
        )  # fmt: skip
        self.client = launch.python(
            str(PROGRAMS / "calling_client.py"), self.broker.address, "insecure", network=there["clients"]
        )
        self.client.wait_line('"instance"', 20.0)

    def actors(self) -> dict[str, Process]:
        return {"broker": self.broker, "service": self.service, "client": self.client}

    def rest(self) -> dict[str, int]:
        """How calls ended since the last one; none is in flight now."""
        lines = len(self.client.lines)
        self.client.tell("rest")
        _, found = self.client.wait_line(r'^{"rest": (.*)}$', 30.0, after=lines)
        rest = json.loads(found[1])
        self.faults += [f"{n} calls ended as {name}" for name, n in rest["counts"].items() if "UNTYPED" in name]
        self.faults += [f"{rest[what]} calls {what} at rest" for what in ("hung", "in_flight", "waiting") if rest[what]]
        if rest["latest_s"] > LATE_S:
            self.faults.append(f"a call ended {rest['latest_s']:.2f} s after its deadline")
        return dict(rest["counts"])

    def during(self, seconds: float) -> dict[str, int]:
        self.client.tell("go")
        time.sleep(seconds)
        return self.rest()

    def cut(self, name: str) -> None:
        self.during(0.5)
        self.hosts.cut(name)
        cut = self.during(CUT_S)
        self.hosts.mend(name)
        began = time.monotonic()
        after: dict[str, int] = {}
        while set(after) != {"answered"} and time.monotonic() - began < BACK_S:
            after = self.during(0.3)
        self.back_s.append(time.monotonic() - began)
        print(f"  {name} cut off for {CUT_S:.0f} s: {cut}; all answered again {self.back_s[-1]:.2f} s after it was "
              "joined", flush=True)  # fmt: skip
        if set(after) != {"answered"}:
            self.faults.append(f"{name}: calls {BACK_S:.0f} s after it was joined again: {after}")
        if name == "broker" and set(cut) != {"answered"}:
            self.faults.append(f"calls did not go on while the broker's host was cut off: {cut}")


def check(rounds: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(Hosts(["broker", "services", "clients"]))
        launch = stack.enter_context(Launcher(cwd=PROGRAMS))
        play = Play(hosts, launch)
        play.rest()
        before = {name: kinds_at_rest(each.pid) for name, each in play.actors().items()}
        for number in range(rounds):
            for weather, how in WEATHERS.items():
                hosts.weather(**how)
                print(f"round {number + 1}, {weather} weather: {play.during(2.0)}", flush=True)
                for name in hosts.names:
                    play.cut(name)
        hosts.weather()
        play.during(1.0)
        for name, each in play.actors().items():
            after = wait_for_kinds(each.pid, before[name], 30.0)
            if after != before[name]:
                play.faults.append(f"{name}: descriptors {before[name]} before, {after} after")
            play.faults += [f"{name}'s ledger: {fault}" for fault in ledger_faults(each.pid)]
            if "Traceback" in each.errors:
                play.faults.append(f"{name} printed a traceback: {each.errors[-2000:]}")
        print(f"packets: {hosts.carried:,} carried, {hosts.dropped:,} lost; worst return {max(play.back_s):.2f} s "
              f"(bound {BACK_S:.0f} s)")  # fmt: skip
    return play.faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("hosts.py: making network namespaces needs root\n  Type: sudo make hold-hosts")
    finish(check(options.rounds))


if __name__ == "__main__":
    main()
