"""Two workers on two processors beside one, and beside a service without workers: calls that compute, interleaved.

`python -m bench.prefork` prints medians and ratios, and exits 1 if two workers answer less than 1.7 times what one
does.
Both processors must be free: it says how much other work took, which counts against two workers, not against one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.disturbance import TRUSTED_SHARE, Disturbance
from datacenter import AsyncClient
from datacenter.testing import Launcher

LOWEST_RATIO = 1.7
IN_FLIGHT = 8
#: name of the service -> options of `datacenter serve`
SYSTEMS = {"plain": (), "one": ("--workers", "1"), "two": ("--workers", "2")}
#: about 3 ms of Python a call
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
STEPS = 40_000


async def answered(client: AsyncClient, service: str, seconds: float) -> float:
    """Calls answered a second, with IN_FLIGHT at a time."""
    end = time.perf_counter() + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await client.call(f"{service}.spin", STEPS, returns=int, deadline_s=60)
            count += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


async def measure(broker: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Calls a second of each system, round by round."""
    found: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    async with AsyncClient(broker) as client:
        for name in SYSTEMS:
            await answered(client, name, 0.5)
        for number in range(rounds):
            names = list(SYSTEMS) if number % 2 == 0 else list(reversed(SYSTEMS))
            for name in names:
                found[name].append(await answered(client, name, seconds))
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
            families = [
                launch.service(f"spinning:{name}", broker, options=words, ready_s=60.0)
                for name, words in SYSTEMS.items()
            ]
            found = asyncio.run(measure(broker.address, options.rounds, options.seconds))
            for family in families:
                family.end()
            broker.end()
    sys.exit(show(found, disturbance.share()))


def show(found: dict[str, list[float]], others: float) -> int:
    """Prints the table; the exit status."""
    ratios = [two / one for one, two in zip(found["one"], found["two"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"calls of about 3 ms of Python, {IN_FLIGHT} at a time, medians of {len(ratios)} interleaved rounds:")
    for name, rates in found.items():
        beside = statistics.median(rates) / statistics.median(found["one"])
        what = "without workers" if name == "plain" else f"{name} worker{'s' * (name == 'two')}"
        print(f"  {what:16} {statistics.median(rates):7.0f} calls/s   {beside:.2f} of one worker")
    print(f"two workers: {ratio:.2f} times one, in the median of the rounds (at least {LOWEST_RATIO})")
    print(
        f"other work took {others:.0%} of {os.cpu_count()} processors"
        + ("; not to be trusted" * (others > TRUSTED_SHARE))
    )
    return int(ratio < LOWEST_RATIO)


if __name__ == "__main__":
    main()
