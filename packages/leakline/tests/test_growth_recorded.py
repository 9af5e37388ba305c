"""The verdict over series recorded from real programs (tests/series/record.py): no healthy one is called a leak in any
stretch of it, each leak is found with its kind, and early.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from leakline.facts import Sample
from leakline.growth import judge

SERIES = Path(__file__).with_name("series")
HEALTHY = sorted(file.stem for file in SERIES.glob("*.txt") if not file.stem.startswith("leak-"))
LEAKING = {
    "leak-zmq-monitor": "eventfd",
    "leak-accepted": "tcp",
    "leak-pipes-of-children": "pipe",
    "leak-deleted-logs": "file",
}
STRETCHES_S = (5.0, 10.0, 20.0)


def samples_of(name: str) -> list[Sample]:
    head, *rows = (SERIES / f"{name}.txt").read_text().splitlines()
    kinds = head.split()[1:]
    samples = []
    for row in rows:
        at, *counts = (int(word) for word in row.split())
        samples.append(Sample(at / 1000, sum(counts), dict(zip(kinds, counts, strict=True))))
    return samples


def stretch(samples: list[Sample], start: float, end: float) -> list[Sample]:
    """What an observation of that stretch would have seen: where nothing moved, there is no row."""
    before = [sample for sample in samples if sample.at <= start]
    inside = [sample for sample in samples if start < sample.at <= end]
    first = [Sample(start, before[-1].total, before[-1].kinds)] if before else []
    seen = first + inside
    return [*seen, Sample(end, seen[-1].total, seen[-1].kinds)] if seen and seen[-1].at < end else seen


@pytest.mark.parametrize("name", HEALTHY)
def test_no_stretch_of_a_healthy_program_is_a_leak(name: str) -> None:
    samples = samples_of(name)
    assert samples[-1].at >= 20
    assert judge(samples).verdict in ("steady", "unknown")
    for seconds in STRETCHES_S:
        start = 0.0
        while start + seconds <= samples[-1].at:
            assert judge(stretch(samples, start, start + seconds)).verdict != "leak", (start, seconds)
            start += 0.5


@pytest.mark.parametrize("name", LEAKING)
def test_each_leak_is_found_with_its_kind_in_ten_seconds(name: str) -> None:
    samples = samples_of(name)
    whole = judge(samples)
    assert list(whole.leaks()) == [LEAKING[name]]
    late = samples[-1].at - 10
    assert list(judge(stretch(samples, late, samples[-1].at)).leaks()) == [LEAKING[name]]


def test_there_are_both_sorts() -> None:
    assert len(HEALTHY) >= 4
    assert {file.stem for file in SERIES.glob("leak-*.txt")} == LEAKING.keys()
