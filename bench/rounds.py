"""Runs the rounds: in each, every row's servers are started, measured by fresh client processes, and ended.

The systems take turns within a round, and each round begins with another one, so that a slow spell of the machine, or
what a predecessor left behind, does not fall on the same system every time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from bench.cell import READY_DEADLINE_S, Cell, Latency, Measure, Throughput
from bench.loops import Loop
from bench.processes import ProcessError, Servers, free_port, output_of, running
from bench.systems import load

Measured = TypeVar("Measured", Throughput, Latency)

SLACK_S = 60.0  # beyond what a cell should take: a machine that is this busy measures nothing


@dataclass(frozen=True)
class Row:
    """One line of the table: a system on an event loop."""

    system: str
    loop: Loop

    def __str__(self) -> str:
        return f"{self.system} ({self.loop})"


@dataclass(frozen=True)
class Lengths:
    """How long to measure."""

    rounds: int = 5
    warm_up_s: float = 0.4
    window_s: float = 2.0
    calls: int = 3000


@dataclass(frozen=True)
class Sample:
    """What one round measured of one row."""

    calls_per_s: float
    cpu_us: float
    p50_us: float
    p99_us: float


def run_rounds(rows: Sequence[Row], lengths: Lengths, tell: Callable[[str], None]) -> dict[Row, list[Sample]]:
    """Measure every row in every round; raises `ProcessError` if one cannot be measured."""
    samples: dict[Row, list[Sample]] = {row: [] for row in rows}
    for number in range(lengths.rounds):
        for row in _rotated(rows, number):
            sample = _measure(row, lengths)
            samples[row].append(sample)
            tell(
                f"round {number + 1}/{lengths.rounds}  {row!s:24} {sample.calls_per_s:>9,.0f} calls/s"
                f"   p50 {sample.p50_us:,.0f} µs   p99 {sample.p99_us:,.0f} µs"
            )
    return samples


def _rotated(rows: Sequence[Row], by: int) -> Iterator[Row]:
    for index in range(len(rows)):
        yield rows[(index + by) % len(rows)]


def _measure(row: Row, lengths: Lengths) -> Sample:
    port = free_port()
    with running(load(row.system).server_commands(port, row.loop)) as servers:
        rate = _client(row, port, "throughput", lengths, Throughput, servers)
        delay = _client(row, port, "latency", lengths, Latency, servers)
    return Sample(rate.calls_per_s, rate.cpu_us, delay.p50_us, delay.p99_us)


def _client(
    row: Row, port: int, measure: Measure, lengths: Lengths, result: type[Measured], servers: Servers
) -> Measured:
    cell = Cell(
        system=row.system,
        loop=row.loop,
        port=port,
        measure=measure,
        warm_up_s=lengths.warm_up_s,
        window_s=lengths.window_s,
        calls=lengths.calls,
    )
    command = [sys.executable, "-m", "bench.cell", msgspec.json.encode(cell).decode()]
    try:
        answer = output_of(command, READY_DEADLINE_S + lengths.warm_up_s + lengths.window_s + SLACK_S)
    except ProcessError as failure:
        raise ProcessError(f"{row}: {measure} could not be measured\n{failure}\n{servers.describe()}") from None
    return msgspec.json.decode(answer, type=result)
