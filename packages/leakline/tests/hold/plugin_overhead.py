"""`make hold-plugin`: what `pytest --leakline` costs on real suites, beside plain runs of them.

CPython's own tests of files, processes, network protocols and asyncio, as far as they pass under pytest and do not wait
for minutes; a suite of many tests that take no time (rules and reports); and one of real ZeroMQ sockets and their
threads (datacenter's, without those that wait for minutes). The processor time of the whole run with its children
decides: 5 % at most. The last row is no suite as one has it, but the worst case: those modules of the first that do
little but open and close descriptors, up to the limit of the process, some 40 Python frames deep. What holds there is
the recorder's own bar for a program that does nothing else (`make bench-recorder`): 15 %.

A processor's speed changes by a third within seconds here, so that runs one after the other say nothing about 5 %. The
two runs of a pair share one processor at the same time: the kernel gives each a few milliseconds in turn, and both see
the same speed. How well that works is told by pairs of two plain runs (the column "the same twice").
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parents[4]
CPYTHON = Path(sysconfig.get_path("stdlib")) / "test"
OPENING = ("selectors", "tempfile", "fileio", "asyncio/test_streams", "asyncio/test_unix_events")
OTHERS = ("ftplib", "httplib", "poplib", "smtplib", "socketserver", "wsgiref", "os", "shutil")
ASYNCIO = ("base_events", "selector_events", "sendfile", "server", "sock_lowlevel", "subprocess")


class Suite(NamedTuple):
    """What is run, how much longer it may take, and the pairs of runs at most: one of the first takes three minutes."""

    name: str
    paths: list[Path]
    limit: float = 1.05
    rounds: int = 5


def cpython(*names: str) -> list[Path]:
    return [CPYTHON / f"test_{name}.py" for name in names]


SUITES = (
    Suite(
        "CPython: files, network, asyncio",
        cpython(*OPENING, *OTHERS, *(f"asyncio/test_{name}" for name in ASYNCIO)),
        rounds=2,
    ),
    Suite(
        "leakline: rules, growth, reports",
        [
            ROOT / "packages/leakline/tests/rules",
            ROOT / "packages/leakline/tests/reports",
            ROOT / "packages/leakline/tests/test_growth.py",
        ],
    ),
    Suite(
        "datacenter: sockets",
        [
            ROOT / f"packages/datacenter/tests/sockets/test_{name}.py"
            for name in ("connections", "loop_socket", "monitor_events", "owned_socket", "socket_context")
        ],
    ),
    Suite("worst case: opens to the limit", cpython(*OPENING), 1.15),
)
# As anyone runs a suite: modules are compiled once. Without files of bytecode each run would compile leakline again.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5


class Run(NamedTuple):
    """One run of a suite: seconds of processor time, and how many tests it had and how many leaked."""

    cpu_s: float
    tests: int
    leaks: int


def start(paths: list[Path], words: tuple[str, ...], processor: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """A suite's run, in one process on one processor."""
    plain = ["-q", "-p", "no:randomly", "--hypothesis-seed=0", "-p", "no:cacheprovider", "-W", "ignore"]
    command = ["taskset", "-c", str(processor), sys.executable, "-m", "pytest", *plain, *words]
    return subprocess.Popen([*command, *map(str, paths)], cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=output)


def end(suite: subprocess.Popen[bytes], output: IO[bytes]) -> Run:
    """Waits for it."""
    _, status, used = os.wait4(suite.pid, 0)
    suite.returncode = os.waitstatus_to_exitcode(status)
    output.seek(0)
    said = output.read().decode(errors="replace")
    found = re.search(r"(\d+) passed", said)
    if found is None or suite.returncode not in (0, 1):
        sys.exit(f"a run ended with {suite.returncode}: {said[-4000:]}")
    return Run(used.ru_utime + used.ru_stime, int(found[1]), said.count("\nLEAK "))


def pair(paths: list[Path], words: tuple[str, ...], number: int) -> tuple[Run, Run]:
    """A plain run, and one with `words`, at the same time on the same processor."""
    processors = sorted(os.sched_getaffinity(0))
    processor = processors[number % len(processors)]
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        if number % 4 < 2:
            plain, other = (start(paths, (), processor, first), start(paths, words, processor, second))
        else:
            other, plain = (start(paths, words, processor, second), start(paths, (), processor, first))
        return end(plain, first), end(other, second)


def median(pairs: list[tuple[Run, Run]]) -> float:
    return statistics.median(other.cpu_s / plain.cpu_s for plain, other in pairs)


def main() -> None:
    over = []
    titles = f"{'plain':>8} {'--leakline':>11} {'ratio':>7} {'of pairs':>13} {'the same twice':>15} {'leaks':>6}"
    print(f"{'suite':34} {'tests':>6} {titles}")
    for name, paths, limit, rounds in SUITES:
        pair(paths, ("--leakline",), 0)  # compiles the sources
        watched, twice = [], []
        for number in range(min(rounds, ROUNDS)):
            watched.append(pair(paths, ("--leakline",), number))
            twice.append(pair(paths, (), number))
        ratios = [other.cpu_s / plain.cpu_s for plain, other in watched]
        seconds = [statistics.median(each[which].cpu_s for each in watched) for which in (0, 1)]
        last = watched[-1][1]
        spread = f"{min(ratios):.3f}-{max(ratios):.3f}"
        figures = f"{seconds[0]:>6.2f} s {seconds[1]:>9.2f} s {median(watched):>7.3f} {spread:>13}"
        print(f"{name:34} {last.tests:>6} {figures} {median(twice):>15.3f} {last.leaks:>6}", flush=True)
        if median(watched) > limit:
            over.append(f"{name}: more than {limit - 1:.0%}")
    if over:
        sys.exit("; ".join(over))


if __name__ == "__main__":
    main()
