"""Two workers on two processors beside one, and beside a service without workers: calls that compute, interleaved.

`python -m bench.prefork` prints medians and ratios, and exits 1 if two workers answer less than 1.7 times what one
does. Calls are so long that what client and broker need beside them is little: it says how much. Both processors must
be free: it says how much other work took, which counts against two workers, not against one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.disturbance import TRUSTED_SHARE, Disturbance
from datacenter import AsyncClient
from datacenter.testing import Launcher, family_of

LOWEST_RATIO = 1.7
IN_FLIGHT = 8
#: name of the service -> options of `datacenter serve`
SYSTEMS = {"plain": (), "one": ("--workers", "1"), "two": ("--workers", "2")}
CODE = """
from datacenter import Service


async def spin(steps: int) -> int:
    total = 0
    for step in range(steps):
        total += step * step % 7
    return total


plain, one, two = (Service(name) for name in ("plain", "one", "two"))
for service in (plain, one, two):
    service.method(spin)
"""
STEPS = 150_000  # about 10 ms of Python
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cell:
    """Calls a second; processor time of a call in milliseconds, in workers and in the client."""

    rate: float
    worker_ms: float
    client_ms: float


async def answered(client: AsyncClient, service: str, workers: Sequence[int], seconds: float) -> Cell:
    """What calls cost, with IN_FLIGHT at a time."""
    end = time.perf_counter() + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await client.call(f"{service}.spin", STEPS, returns=int, deadline_s=60)
            count += 1

    began, before_s, own_s = time.perf_counter(), _cpu_s(workers), time.process_time()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    took_s, worker_s, client_s = time.perf_counter() - began, _cpu_s(workers) - before_s, time.process_time() - own_s
    return Cell(count / took_s, worker_s / count * 1e3, client_s / count * 1e3)


def _cpu_s(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


async def measure(broker: str, workers: dict[str, list[int]], rounds: int, seconds: float) -> dict[str, list[Cell]]:
    """The cells of each system, round by round. `workers`: the processes that serve it."""
    found: dict[str, list[Cell]] = {name: [] for name in SYSTEMS}
    async with AsyncClient(broker) as client:
        for name in SYSTEMS:
            await answered(client, name, workers[name], 0.5)
        for number in range(rounds):
            names = list(SYSTEMS) if number % 2 == 0 else list(reversed(SYSTEMS))
            for name in names:
                found[name].append(await answered(client, name, workers[name], seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each system in each round")
    options = parser.parse_args()
    disturbance = Disturbance()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "spinning.py").write_text(CODE)
        with Launcher(cwd=folder) as launch:
            broker = launch.broker()
            families = {
                name: launch.service(f"spinning:{name}", broker, options=words, ready_s=60.0)
                for name, words in SYSTEMS.items()
            }
            workers = {name: _workers(family.pid) for name, family in families.items()}
            found = asyncio.run(measure(broker.address, workers, options.rounds, options.seconds))
            for family in families.values():
                family.end()
            broker.end()
    sys.exit(show(found, disturbance.share()))


def _workers(pid: int) -> list[int]:
    """Of a family its workers; a service without workers is its own."""
    return [each.pid for each in family_of(pid) if each.name.startswith("worker")] or [pid]


def show(found: dict[str, list[Cell]], others: float) -> int:
    """Prints the table; the exit status."""
    ratios = [two.rate / one.rate for one, two in zip(found["one"], found["two"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"calls of about 10 ms of Python, {IN_FLIGHT} at a time, medians of {len(ratios)} interleaved rounds:")
    one = statistics.median(cell.rate for cell in found["one"])
    for name, cells in found.items():
        rate = statistics.median(cell.rate for cell in cells)
        worker_ms = statistics.median(cell.worker_ms for cell in cells)
        client_ms = statistics.median(cell.client_ms for cell in cells)
        what = "without workers" if name == "plain" else f"{name} worker{'s' * (name == 'two')}"
        print(
            f"  {what:16} {rate:7.1f} calls/s   {rate / one:.2f} of one worker   "
            f"{worker_ms:.1f} ms of processor a call, {client_ms:.2f} ms the client's"
        )
    print(
        f"two workers: {ratio:.2f} times one, in the median of the rounds "
        f"({min(ratios):.2f} to {max(ratios):.2f}; at least {LOWEST_RATIO})"
    )
    print(
        f"other work took {others:.0%} of {os.cpu_count()} processors"
        + ("; not to be trusted" * (others > TRUSTED_SHARE))
    )
    return int(ratio < LOWEST_RATIO)


if __name__ == "__main__":
    main()
