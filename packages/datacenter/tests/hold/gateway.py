"""A gateway under load whose backend comes and goes every second, and whose processes are killed.

    python gateway.py --seconds 600 --kills 100 --balance both

Flapping: one of two Redis servers is killed and started again, second by second, under clients and redis-benchmark.
Each request that is not answered was in flight to that server, leakline finds nothing in any process meanwhile, and
nobody has more descriptors afterwards than before.
Kills: each worker, the watcher and the fork server are killed so many times. The service goes on; a killed watcher or
fork server costs no request; nobody but the watcher ever has a connection to the registry.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from os import kill
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import redis
from figures import Doctor, distribution, finish, kinds_at_rest, ledger_faults, wait_for, wait_for_kinds
from gateway_client import Load

from datacenter.testing import Launcher
from gateway_site import GatewaySite, tcp_sockets
from redis_servers import start_redis

TARGETS = ("worker-1", "worker-2", "watcher", "fork-server")
HARMLESS = ("watcher", "fork-server")
BACK_S = 40.0
LOOK_S = 5.0


def flapping(site: GatewaySite, seconds: float) -> list[str]:
    """One server comes and goes, each second."""
    _, port = site.redises[0]
    by_connection = site.balance == "least-connections"
    server = site.redises[0][0]
    began, flaps = time.monotonic(), 0
    with (
        Load(site.port, clients=8, by_connection=by_connection) as load,
        Benchmark(site) as benchmark,
        Doctor(site.everybody(), LOOK_S) as doctor,
    ):
        while time.monotonic() - began < seconds:
            time.sleep(1.0)  # the pace of the flapping is what is asked for
            server.kill()
            site.launcher.release(server)
            time.sleep(1.0)
            server, _ = start_redis(site.launcher, port)
            flaps += 1
    site.redises[0] = (server, port)
    ends = dict(load.ends.most_common(8))
    print(f"{site.balance}: {flaps} flaps in {time.monotonic() - began:.0f} s: {ends}, blamed {dict(load.blamed)}")
    print(f"{site.balance}: longest from answer to answer {load.longest_s:.2f} s; redis-benchmark: {benchmark.runs}")
    print(f"{site.balance}: leakline looked {doctor.looks} times for {LOOK_S:g} s")
    faults = benchmark.faults() + doctor.faults
    faults += [] if load.ends["answered"] > 20 * seconds else [f"only {load.ends['answered']} answers"]
    if load.ends["error of a request not in flight"]:
        faults.append(f"{load.ends['error of a request not in flight']} requests had an error that were not in flight")
    innocent = {blamed: count for blamed, count in load.blamed.items() if blamed != port}
    if site.balance == "least-connections":
        innocent.pop(0, None)  # it ended before it could ask where it had got to: counted, and bounded here
        if load.blamed[0] > 8 * flaps:
            faults.append(f"{load.blamed[0]} connections ended before they could ask which server they had")
    if innocent:
        faults.append(f"requests to servers that never died were not answered: {innocent}")
    return faults


class Benchmark:
    """redis-benchmark, again and again. It gives up at its first error or lost connection: sharded, it asks only for
    keys of the server that never dies, and must never fail.
    """

    def __init__(self, site: GatewaySite) -> None:
        self.runs: Counter[str] = Counter()
        self._sharded = site.balance == "redis-keys"
        key = f"{{{_tag_of(site, site.redises[1][1])}}}" if self._sharded else ""
        self._words = ("redis-benchmark", "-p", str(site.port), "-n", "20000", "-c", "10", "-r", "1000", "-q")
        self._words += ("SET", f"{key}__rand_int__", "x")
        self._stop = threading.Event()
        self._said: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Benchmark:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def faults(self) -> list[str]:
        if self._sharded and self.runs["failed"]:
            return [f"redis-benchmark of the living server's keys failed {self.runs['failed']} times: {self._said}"]
        return [] if self.runs["whole"] else ["redis-benchmark never came to its end"]

    def _run(self) -> None:
        while not self._stop.is_set():
            done = subprocess.run(self._words, capture_output=True, text=True, timeout=300, check=False)
            self.runs["failed" if done.returncode else "whole"] += 1
            if done.returncode:
                self._said.append(done.stderr[-200:])


def _tag_of(site: GatewaySite, port: int) -> str:
    """A hash tag whose keys belong to the server at this port."""
    with redis.Redis(port=site.port, protocol=2) as gateway, redis.Redis(port=port) as server:
        for number in range(100):
            gateway.set(f"{{tag{number}}}", "x")
            if server.exists(f"{{tag{number}}}"):
                return f"tag{number}"
    raise AssertionError("no key belongs to it")


def kills(site: GatewaySite, count: int) -> list[str]:
    """Each process of the family but the supervisor, so many times."""
    faults: list[str] = []
    killed: Counter[str] = Counter()
    back_s: dict[str, list[float]] = {name: [] for name in TARGETS}
    with Load(site.port, clients=8, by_connection=False) as load:
        for _ in range(count):
            for name in HARMLESS:
                faults += _kill(site, name, load, killed, back_s)
        lost = {what: number for what, number in load.ends.items() if what != "answered"}
        print(f"{site.balance}: watcher and fork server killed {sum(killed.values())} times: {dict(load.ends)}")
        if lost:
            faults.append(f"killing watcher and fork server cost requests: {lost}")
        for _ in range(count):
            for name in ("worker-1", "worker-2"):
                faults += _kill(site, name, load, killed, back_s)
    print(f"{site.balance}: {dict(killed)}: {dict(load.ends)}; longest from answer to answer {load.longest_s:.2f} s")
    for name, times in back_s.items():
        print(f"{site.balance}: {name} was back after {distribution(times)}")
    return faults


def _kill(site: GatewaySite, name: str, load: Load, killed: Counter[str], back_s: dict[str, list[float]]) -> list[str]:
    former = site.family()[name]
    began = time.monotonic()
    kill(former, signal.SIGKILL)
    wait_for(f"another {name}", lambda: site.family().get(name, former) != former, BACK_S)
    if name not in HARMLESS:
        wait_for(f"{name} listens", lambda: "listener" in tcp_sockets(site.family().get(name, 0)), BACK_S)
    back_s[name].append(time.monotonic() - began)
    killed[name] += 1
    answered = load.ends["answered"]
    wait_for("the service goes on", lambda: load.ends["answered"] > answered + 10, BACK_S)
    registry = f"to {site.broker_port}"
    return [
        f"{relative} has a connection to the registry"
        for relative, pid in {"supervisor": site.proxy.pid, **site.family()}.items()
        if relative != "watcher" and registry in tcp_sockets(pid)
    ]


def check(balance: str, seconds: float, count: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, Launcher(cwd=folder) as launcher:
        site = GatewaySite(launcher, balance)
        before = {name: kinds_at_rest(pid, rest_s=2.0) for name, pid in site.everybody().items()}
        faults = flapping(site, seconds) if seconds else []
        faults += kills(site, count) if count else []
        for name, pid in site.everybody().items():
            after = wait_for_kinds(pid, before[name], 30.0)
            print(f"{balance}: {name}: descriptors before {before[name]}, after {after}")
            if after != before[name]:
                faults.append(f"{name}: descriptors {before[name]} before, {after} after")
            if name.startswith("worker"):
                faults += [f"{name}'s ledger: {fault}" for fault in ledger_faults(pid)]
        if site.proxy.end(20.0) != 0:
            faults.append(f"the gateway ended with {site.proxy.wait()}: {site.proxy.errors[-2000:]}")
        return [f"{balance}: {fault}" for fault in faults]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of flapping; 0: none")
    parser.add_argument("--kills", type=int, default=100, help="of each process; 0: none")
    parser.add_argument("--balance", choices=("both", "least-connections", "redis-keys"), default="both")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    random.seed(options.seed)
    balances = ["redis-keys", "least-connections"] if options.balance == "both" else [options.balance]
    finish([fault for balance in balances for fault in check(balance, options.seconds, options.kills)])


if __name__ == "__main__":
    main()
