"""`datacenter proxy` beside nutcracker (twemproxy) and Redis itself: one worker each, the same servers, interleaved.

    make bench-gateway

redis-benchmark asks, in each round, each of them; medians. Processor time is that of the process in the middle. With
two processors the load, two Redis servers and the gateway share them: what matters are the ratios.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "datacenter" / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "datacenter" / "tests" / "hold"))

from firewall import start_nutcracker  # type: ignore[import-not-found]  # test programs, found by the path above

from datacenter.testing import Launcher
from gateway_site import GatewaySite  # type: ignore[import-not-found]

TICKS = os.sysconf("SC_CLK_TCK")
PIPELINES = (1, 16)


def asked(port: int, requests: int, pipeline: int) -> float:
    """Requests per second of SET and GET of 1 000 keys by 50 clients: redis-benchmark's own figure, the lower one."""
    words = ["redis-benchmark", "-p", str(port), "-t", "set,get", "-n", str(requests), "-c", "50", "-r", "1000"]
    words += ["-P", str(pipeline), "-q"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    found = re.findall(r"(SET|GET): ([\d.]+) requests per second", done.stdout)
    if done.returncode or len(found) != 2:
        raise SystemExit(f"redis-benchmark at {port}: {done.stdout[-300:]} {done.stderr[-300:]}")
    return min(float(rate) for _, rate in found)


def cpu_s(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Launcher(cwd=folder) as launcher:
        tunnels = GatewaySite(launcher, "least-connections", workers=1)
        sharded = GatewaySite(launcher, "redis-keys", workers=1)
        twemproxy, port = start_nutcracker(
            launcher, Path(folder), [each for _, each in sharded.redises], host="127.0.0.1"
        )
        systems = {
            "redis itself": (sharded.redises[0][1], sharded.redises[0][0].pid),
            "nutcracker": (port, twemproxy.pid),
            "proxy redis-keys": (sharded.port, sharded.family()["worker-1"]),
            "proxy least-connections": (tunnels.port, tunnels.family()["worker-1"]),
        }
        rates: dict[tuple[str, int], list[float]] = defaultdict(list)
        costs: dict[tuple[str, int], list[float]] = defaultdict(list)
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for pipeline in PIPELINES:
                for name, (at, pid) in systems.items():
                    before = cpu_s(pid)
                    rates[name, pipeline].append(asked(at, options.requests, pipeline))
                    costs[name, pipeline].append((cpu_s(pid) - before) / (2 * options.requests) * 1e6)
    print(f"{'one worker':<26} {'pipeline':>8} {'requests/s':>11} {'of nutcracker':>14} {'CPU a request':>14}")
    for pipeline in PIPELINES:
        peer = statistics.median(rates["nutcracker", pipeline])
        for name in systems:
            rate, cost = statistics.median(rates[name, pipeline]), statistics.median(costs[name, pipeline])
            print(f"{name:<26} {pipeline:>8} {rate:>11,.0f} {rate / peer:>14.2f} {cost:>11.1f} us")


if __name__ == "__main__":
    main()
