"""`make hold-plugin`: what `pytest --leakline` costs on real suites, interleaved with plain runs of them.

A suite whose tests open and close descriptors all the time (CPython's own), one of many tests that take no time (rules
and reports), and one of real ZeroMQ sockets and their threads (datacenter's, without those that wait for minutes). The
processor time of the whole run with its children decides, as it hardly depends on what else the machine does; the wall
time is shown beside it.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[4]
CPYTHON = Path(sysconfig.get_path("stdlib")) / "test"
SUITES = {
    "CPython: files, sockets, asyncio": [
        CPYTHON / "test_selectors.py",
        CPYTHON / "test_tempfile.py",
        CPYTHON / "test_fileio.py",
        CPYTHON / "test_asyncio/test_streams.py",
        CPYTHON / "test_asyncio/test_unix_events.py",
    ],
    "leakline: rules, growth, reports": [
        ROOT / "packages/leakline/tests/rules",
        ROOT / "packages/leakline/tests/reports",
        ROOT / "packages/leakline/tests/test_growth.py",
    ],
    "datacenter: sockets": [
        ROOT / f"packages/datacenter/tests/sockets/test_{name}.py"
        for name in ("connections", "loop_socket", "monitor_events", "owned_socket", "socket_context")
    ],
}
LIMIT = 1.05
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
UNEVEN = {"datacenter: sockets": 3}  # times as many rounds: threads that wait for each other take now more, now less


class Run(NamedTuple):
    """One run of a suite: seconds, and how many tests it had and how many leaked."""

    cpu_s: float
    wall_s: float
    tests: int
    leaks: int


def run(paths: list[Path], *words: str) -> Run:
    """Runs a suite in one process."""
    plain = ["-q", "-p", "no:randomly", "--hypothesis-seed=0", "-p", "no:cacheprovider", "-W", "ignore"]
    command = [sys.executable, "-m", "pytest", *plain, *words]
    before, began = os.times(), time.monotonic()
    ran = subprocess.run([*command, *map(str, paths)], cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    found = re.search(r"(\d+) passed", ran.stdout)
    if found is None or ran.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Run(cpu, time.monotonic() - began, int(found[1]), ran.stdout.count("\nLEAK "))


def main() -> None:
    over = []
    print(f"{'suite':34} {'tests':>6} {'plain':>8} {'--leakline':>11} {'processor':>10} {'wall':>6} {'leaks':>6}")
    for name, paths in SUITES.items():
        run(paths)  # compiles the sources
        pairs = []
        for number in range(ROUNDS * UNEVEN.get(name, 1)):
            order = ((), ("--leakline",)) if number % 2 else (("--leakline",), ())
            first, second = (run(paths, *words) for words in order)
            pairs.append((first, second) if number % 2 else (second, first))
        cpu = statistics.median(watched.cpu_s / plain.cpu_s for plain, watched in pairs)
        wall = statistics.median(watched.wall_s / plain.wall_s for plain, watched in pairs)
        plain_s = statistics.median(plain.cpu_s for plain, _ in pairs)
        watched_s = statistics.median(watched.cpu_s for _, watched in pairs)
        last = pairs[-1][1]
        seconds = f"{plain_s:>6.2f} s {watched_s:>9.2f} s"
        print(f"{name:34} {last.tests:>6} {seconds} {cpu:>10.3f} {wall:>6.2f} {last.leaks:>6}", flush=True)
        if cpu > LIMIT:
            over.append(name)
    if over:
        sys.exit(f"costs more than {LIMIT - 1:.0%}: {', '.join(over)}")


if __name__ == "__main__":
    main()
