"""`datacenter proxy` beside nutcracker (twemproxy) and Redis itself, with one worker and with two, interleaved.

    make bench-gateway

redis-benchmark asks each of them in each round, in another order each time. The load, two Redis servers and what is
between them share the machine's processors, so the table says who takes how much of each: where their sum is all that
there is, that is what limits. Exits 1 if the better of one and two workers answers less than 0.5 times what nutcracker
does, in the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "datacenter" / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "datacenter" / "tests" / "hold"))

from firewall import start_nutcracker  # type: ignore[import-not-found]  # test programs, found by the path above

from bench.disturbance import TRUSTED_SHARE, Disturbance
from datacenter.testing import Launcher, Process
from gateway_site import GatewaySite  # type: ignore[import-not-found]

TICKS = os.sysconf("SC_CLK_TCK")
#: pipeline -> how many times as many requests, so that a cell lasts for seconds
PIPELINES = {1: 1, 16: 5}
BALANCES = ("redis-keys", "least-connections")
WORKERS = (1, 2)
LOWEST_RATIO = 0.5
PEER = "nutcracker"


@dataclass(frozen=True)
class System:
    """What is asked: at which port, which processes are in the middle, which serve."""

    port: int
    middle: Sequence[int]
    servers: Sequence[int]


@dataclass(frozen=True)
class Cell:
    """Requests a second, and processor time of a request in microseconds: load, middle, servers. `cores`: in use."""

    rate: float
    load_us: float
    middle_us: float
    servers_us: float
    cores: float


def asked(port: int, requests: int, pipeline: int) -> float:
    """Requests per second of SET and GET of 1 000 keys by 50 clients: redis-benchmark's own figure, the lower one."""
    words = ["redis-benchmark", "-p", str(port), "-t", "set,get", "-n", str(requests), "-c", "50", "-r", "1000"]
    words += ["-P", str(pipeline), "-q"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    found = re.findall(r"(SET|GET): ([\d.]+) requests per second", done.stdout)
    if done.returncode or len(found) != 2:
        raise SystemExit(f"redis-benchmark at {port}: {done.stdout[-300:]} {done.stderr[-300:]}")
    return min(float(rate) for _, rate in found)


def cpu_s(pids: Sequence[int]) -> float:
    """Processor time of processes."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def load_s() -> float:
    """Processor time of the load: of children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measured(system: System, requests: int, pipeline: int) -> Cell:
    before = load_s(), cpu_s(system.middle), cpu_s(system.servers), time.perf_counter()
    rate = asked(system.port, requests, pipeline)
    took_s = time.perf_counter() - before[3]
    load, middle, servers = (
        now - then for now, then in zip((load_s(), cpu_s(system.middle), cpu_s(system.servers)), before, strict=False)
    )
    each = 1e6 / (2 * requests)
    return Cell(rate, load * each, middle * each, servers * each, (load + middle + servers) / took_s)


def started(launcher: Launcher, folder: Path) -> tuple[dict[str, System], list[Process]]:
    """Redis itself, nutcracker before two servers, and before the same ones each balance with each count of workers;
    and the gateways.
    """
    first = GatewaySite(launcher, BALANCES[0], workers=WORKERS[0])
    servers = [server.pid for server, _ in first.redises]
    ports = [port for _, port in first.redises]
    twemproxy, port = start_nutcracker(launcher, folder, ports, host="127.0.0.1")
    systems = {"redis itself": System(ports[0], [], servers), PEER: System(port, [twemproxy.pid], servers)}
    proxies = []
    for balance in BALANCES:
        for workers in WORKERS:
            proxy, at = (first.proxy, first.port)
            if (balance, workers) != (BALANCES[0], WORKERS[0]):
                proxy, at = first.start_proxy(balance, workers)
            pids = [pid for name, pid in first.family(proxy).items() if name.startswith("worker")]
            systems[f"{balance}, {workers} worker{'s' * (workers > 1)}"] = System(at, pids, servers)
            proxies.append(proxy)
    return systems, proxies


def measure(systems: dict[str, System], rounds: int, requests: int) -> dict[tuple[str, int], list[Cell]]:
    """The cells of each system and pipeline, round by round."""
    cells: dict[tuple[str, int], list[Cell]] = {(name, pipeline): [] for name in systems for pipeline in PIPELINES}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for pipeline, times in PIPELINES.items():
            names = list(systems) if number % 2 == 0 else list(reversed(systems))
            for name in names:
                cells[name, pipeline].append(measured(systems[name], requests * times, pipeline))
    return cells


def ratio(cells: dict[tuple[str, int], list[Cell]], name: str, pipeline: int) -> float:
    """To nutcracker, in the median of the rounds."""
    pairs = zip(cells[name, pipeline], cells[PEER, pipeline], strict=True)
    return statistics.median(cell.rate / peer.rate for cell, peer in pairs)


def show(cells: dict[tuple[str, int], list[Cell]], others: float) -> int:
    """Prints the table; the exit status."""
    titles = ("requests/s", "of nutcracker", "load us", "middle us", "servers us", "cores")
    print(f"{'':<28} {'pipeline':>8} " + " ".join(f"{title:>13}" for title in titles))
    for name, pipeline in sorted(cells, key=lambda cell: cell[1]):
        rate, *costs, cores = (
            statistics.median(getattr(cell, field) for cell in cells[name, pipeline])
            for field in ("rate", "load_us", "middle_us", "servers_us", "cores")
        )
        figures = (f"{rate:,.0f}", f"{ratio(cells, name, pipeline):.2f}", *(f"{cost:.1f}" for cost in costs))
        print(f"{name:<28} {pipeline:>8} " + " ".join(f"{figure:>13}" for figure in (*figures, f"{cores:.2f}")))
    short = False
    for balance in BALANCES:
        for pipeline in PIPELINES:
            names = [name for name, _ in cells if name.startswith(balance)]
            best = max(ratio(cells, name, pipeline) for name in names)
            short |= best < LOWEST_RATIO
            print(f"{balance}, pipeline {pipeline}: {best:.2f} of nutcracker at best (at least {LOWEST_RATIO})")
    print(
        f"other work took {others:.0%} of {os.cpu_count()} processors"
        + ("; not to be trusted" * (others > TRUSTED_SHARE))
    )
    return int(short)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000, help="of each kind in a cell without pipeline")
    options = parser.parse_args()
    disturbance = Disturbance()
    with tempfile.TemporaryDirectory() as folder, Launcher(cwd=folder) as launcher:
        systems, proxies = started(launcher, Path(folder))
        cells = measure(systems, options.rounds, options.requests)
        for proxy in proxies:
            proxy.end(20.0)  # in order, so that what its workers took is counted as ours
    sys.exit(show(cells, disturbance.share()))


if __name__ == "__main__":
    main()
