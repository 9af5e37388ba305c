"""How often the verdict is wrong, measured on generated series with a fixed seed; docs/verdict.md holds the figures.

`make hold-verdict` (this file run as a program) prints the table of the page with many more series each.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from leakline.facts import Sample
from leakline.growth import judge

HERTZ = 10
Levels = Iterator[int]
Maker = Callable[[random.Random, float], Levels]


def ticks(seconds: float) -> Iterator[float]:
    for index in range(int(seconds * HERTZ) + 1):
        yield index / HERTZ


def poisson(rng: random.Random, mean: float) -> int:
    count, at = 0, rng.expovariate(1.0)
    while at < mean:
        count, at = count + 1, at + rng.expovariate(1.0)
    return count


def idle(rng: random.Random, seconds: float) -> Levels:
    level = rng.randint(3, 50)
    for _ in ticks(seconds):
        yield level


def churn(rng: random.Random, seconds: float) -> Levels:
    """Connections that come and go: arrivals and life times at random, stationary from the start."""
    arrivals, life = rng.uniform(1, 80), rng.uniform(0.05, 3.0)
    level = poisson(rng, arrivals * life)
    for _ in ticks(seconds):
        yield 10 + level
        gone = sum(rng.random() < min(1.0, 1 / (HERTZ * life)) for _ in range(level))
        level += poisson(rng, arrivals / HERTZ) - gone


def sawtooth(rng: random.Random, seconds: float) -> Levels:
    """A pool (or a cyclic garbage collector) that fills and empties again, at least once within the observation."""
    period, height, phase = rng.uniform(0.5, 0.6 * seconds), rng.randint(3, 200), rng.random()
    for at in ticks(seconds):
        yield 10 + int(height * ((at / period + phase) % 1.0))


def bursts(rng: random.Random, seconds: float) -> Levels:
    """Rest, broken by bursts that open some and close them all soon after."""
    level, left = 0, 0
    for _ in ticks(seconds):
        if left:
            left -= 1
        else:
            level = 0
            if rng.random() < 0.05:
                level, left = rng.randint(1, 100), rng.randint(1, 10)
        yield 20 + level


def warm_up(rng: random.Random, seconds: float) -> Levels:
    """A start: levels off exponentially towards a ceiling, within the observation."""
    ceiling, constant = rng.randint(5, 300), rng.uniform(0.05, 0.3) * seconds
    for at in ticks(seconds):
        yield 5 + round(ceiling * (1 - 2.718281828 ** (-at / constant)))


def drop_and_refill(rng: random.Random, seconds: float) -> Levels:
    """An outage closes a pool of connections, which then come back one by one."""
    size, drop, rate = rng.randint(5, 200), rng.uniform(0.1, 0.5) * seconds, rng.uniform(5, 100)
    for at in ticks(seconds):
        yield 8 + (size if at < drop else min(size, int((at - drop) * rate)))


def leak(rng: random.Random, seconds: float) -> Levels:
    """A steady leak from the start, at 1 to 200 per second."""
    rate, phase = 10 ** rng.uniform(0, 2.3), rng.random()
    for at in ticks(seconds):
        yield 10 + int(at * rate + phase)


def random_leak(rng: random.Random, seconds: float) -> Levels:
    """A leak whose moments are random, at 2 to 200 per second."""
    rate, level = 10 ** rng.uniform(0.3, 2.3), 10
    for _ in ticks(seconds):
        yield level
        level += poisson(rng, rate / HERTZ)


def late_leak(rng: random.Random, seconds: float) -> Levels:
    """A leak that begins in the middle, at least 4 s before the end, at 3 to 200 per second."""
    rate, onset = 10 ** rng.uniform(0.48, 2.3), rng.uniform(0.1 * seconds, seconds - 4.0)
    for at in ticks(seconds):
        yield 10 + int(max(0.0, at - onset) * rate)


def leak_below_churn(rng: random.Random, seconds: float) -> Levels:
    """A leak under a churn that by itself moves a fifth as much as the leak adds."""
    rate = rng.uniform(10, 100)
    width = max(1, int(rate * seconds / 5))
    for at in ticks(seconds):
        yield 10 + int(at * rate) + rng.randint(0, width)


def leak_in_random_churn(rng: random.Random, seconds: float) -> Levels:
    """A leak of 3 to 20 per second, in the churn of connections above: often hidden by it in a short observation."""
    rate = rng.uniform(3, 20)
    for at, level in zip(ticks(seconds), churn(rng, seconds), strict=True):
        yield level + int(rate * at)


def bursty_leak(rng: random.Random, seconds: float) -> Levels:
    """Each burst leaves some behind, about one burst a second."""
    level, each = 10, rng.randint(1, 30)
    gap = rng.uniform(0.5, 1.2)
    due = rng.uniform(0, gap)
    for at in ticks(seconds):
        if at >= due:
            level, due = level + each, due + gap * rng.uniform(0.7, 1.3)
        yield level


def slow_leak(rng: random.Random, seconds: float) -> Levels:
    """One in ten seconds: too slow for the observation."""
    phase = rng.random()
    for at in ticks(seconds):
        yield 10 + int(at / 10 + phase)


HEALTHY: list[Maker] = [idle, churn, sawtooth, bursts, warm_up, drop_and_refill]
LEAKING: list[Maker] = [leak, random_leak, late_leak, leak_below_churn, bursty_leak]


def verdicts(make: Maker, seconds: float, rounds: int, seed: int) -> Counter[str]:
    """Verdicts over `rounds` series, as counts."""
    rng = random.Random(f"{make.__name__} {seed}")
    found: Counter[str] = Counter()
    for _ in range(rounds):
        levels = make(rng, seconds)
        samples = [Sample(at, level, {"tcp": level}) for at, level in zip(ticks(seconds), levels, strict=True)]
        found[judge(samples).verdict] += 1
    return found


@pytest.mark.parametrize("make", HEALTHY, ids=lambda make: make.__name__)
def test_healthy_series_are_hardly_ever_called_a_leak(make: Maker) -> None:
    found = verdicts(make, 10.0, 150, seed=1)
    assert found["leak"] <= 1, found


@pytest.mark.parametrize("make", LEAKING, ids=lambda make: make.__name__)
def test_leaks_are_hardly_ever_missed_and_never_called_steady(make: Maker) -> None:
    found = verdicts(make, 10.0, 150, seed=2)
    assert found["leak"] >= 143, found
    assert found["steady"] == 0, found


def test_a_leak_in_random_churn_is_mostly_found_and_hardly_ever_called_steady() -> None:
    found = verdicts(leak_in_random_churn, 10.0, 150, seed=4)
    assert found["leak"] >= 125, found
    assert found["steady"] <= 5, found


def test_a_leak_too_slow_for_the_observation_is_unknown_not_steady() -> None:
    found = verdicts(slow_leak, 10.0, 50, seed=3)
    assert found == {"unknown": 50}
    assert verdicts(slow_leak, 120.0, 10, seed=3) == {"leak": 10}


def print_table(rounds: int) -> None:
    print(f"{'series':20} {'seconds':>7} {'leak':>8} {'unknown':>8} {'steady':>8}   (share of {rounds} series)")
    for seconds in (10.0, 30.0):
        for make in [*HEALTHY, *LEAKING, leak_in_random_churn, slow_leak]:
            found = verdicts(make, seconds, rounds, seed=0)
            shares = "".join(f"{100 * found[verdict] / rounds:8.1f}%" for verdict in ("leak", "unknown", "steady"))
            print(f"{make.__name__:20} {seconds:7.0f} {shares}")


if __name__ == "__main__":
    print_table(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
