"""One measurement, in a client process of its own: `python -m bench.cell JSON` prints one JSON object.

The client waits for the server by calling it until a call succeeds, then opens a fresh client, warms up and measures.
Every answer is compared with what was sent.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from statistics import median
from typing import Literal

import msgspec

from bench.loops import Loop, run
from bench.systems import Client, System, load

READY_DEADLINE_S = 15.0
PROBE_DEADLINE_S = 2.0  # of one attempt
PROBE_PAUSE_S = 0.02

Measure = Literal["throughput", "latency"]


class Cell(msgspec.Struct, kw_only=True):
    """What to measure; lengths in seconds, payload in bytes."""

    system: str
    loop: Loop
    port: int
    measure: Measure
    payload: int = 64
    in_flight: int = 100
    warm_up_s: float = 0.4
    window_s: float = 2.0
    calls: int = 3000


class Throughput(msgspec.Struct):
    """`cpu_us`: processor time of the client for one call, all its threads; steadier than time on a busy machine."""

    calls_per_s: float
    cpu_us: float


class Latency(msgspec.Struct):
    """Of calls made one after the other, in microseconds."""

    p50_us: float
    p99_us: float


async def wait_until_ready(system: System, port: int, payload: bytes) -> None:
    """Return after the first call that was answered; raises `TimeoutError` with the last failure as its cause."""
    deadline = time.monotonic() + READY_DEADLINE_S
    while True:
        try:
            await asyncio.wait_for(_call_once(system, port, payload), PROBE_DEADLINE_S)
            return
        except Exception as failure:  # each system has its own error for "not there yet"
            if time.monotonic() > deadline:
                raise TimeoutError(f"no call was answered within {READY_DEADLINE_S:g} s") from failure
        await asyncio.sleep(PROBE_PAUSE_S)


async def _call_once(system: System, port: int, payload: bytes) -> None:
    async with system.connect(port) as client:
        check(await client.call(payload), payload)


def check(answer: bytes, payload: bytes) -> None:
    """Raise `ValueError` if `answer` is not what was sent."""
    if answer != payload:
        raise ValueError(f"sent {payload!r}, got {answer!r}")


async def throughput(client: Client, payload: bytes, cell: Cell) -> Throughput:
    """Keep `cell.in_flight` calls under way and count those that ended within the window."""
    ended = 0
    stopping = False

    async def caller() -> None:
        nonlocal ended
        while not stopping:
            check(await client.call(payload), payload)
            ended += 1

    async def window() -> Throughput:
        await asyncio.sleep(cell.warm_up_s)
        ended_before, cpu_before, start = ended, time.process_time(), time.perf_counter()
        await asyncio.sleep(cell.window_s)
        calls = ended - ended_before
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_before
        if calls == 0:
            raise ValueError(f"no call ended within {cell.window_s:g} s")
        return Throughput(calls_per_s=calls / elapsed, cpu_us=cpu / calls * 1e6)

    callers = asyncio.gather(*(caller() for _ in range(cell.in_flight)))
    measured = await window()
    stopping = True
    await callers  # a failed call fails the cell: its rate would be that of fewer callers
    return measured


async def latency(client: Client, payload: bytes, cell: Cell) -> Latency:
    """Make `cell.calls` calls one after the other."""
    warm = time.monotonic() + cell.warm_up_s
    while time.monotonic() < warm:
        check(await client.call(payload), payload)
    durations = []
    for _ in range(cell.calls):
        start = time.perf_counter_ns()
        answer = await client.call(payload)
        durations.append(time.perf_counter_ns() - start)
        check(answer, payload)
    durations.sort()
    return Latency(p50_us=median(durations) / 1000, p99_us=durations[len(durations) * 99 // 100] / 1000)


async def measure(cell: Cell) -> Throughput | Latency:
    """Wait for the server, then measure with a client that has not been used before."""
    system, payload = load(cell.system), os.urandom(cell.payload)
    await wait_until_ready(system, cell.port, payload)
    async with system.connect(cell.port) as client:
        if cell.measure == "throughput":
            return await throughput(client, payload, cell)
        return await latency(client, payload, cell)


if __name__ == "__main__":
    wanted = msgspec.json.decode(sys.argv[1], type=Cell)
    sys.stdout.buffer.write(msgspec.json.encode(run(measure(wanted), wanted.loop)))
