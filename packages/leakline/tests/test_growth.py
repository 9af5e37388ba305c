"""The judgement of growth, on series whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakline.facts import Sample
from leakline.growth import (
    deepest_fall,
    envelope,
    judge,
    kendall_tau,
    onset_of,
    seconds_to,
    series_of_kinds,
    slope,
    trend_of,
)

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=150)


def sampled(level: Callable[[float], int], seconds: float = 10.0, kind: str = "tcp") -> list[Sample]:
    """A series at 10 Hz."""
    return [Sample(index / 10, level(index / 10), {kind: level(index / 10)}) for index in range(int(seconds * 10) + 1)]


def points(counts: list[int]) -> list[tuple[float, int]]:
    return [(index / 10, count) for index, count in enumerate(counts)]


def test_a_steady_leak_has_its_rate_and_the_time_to_the_limit() -> None:
    growth = judge(sampled(lambda at: 24 + int(20 * at)), limit=1024)
    assert growth.verdict == "leak"
    assert growth.trends["tcp"].per_second == pytest.approx(20, rel=0.02)
    assert growth.seconds_to_limit == pytest.approx((1024 - 224) / 20, rel=0.02)


def test_a_leak_that_begins_in_the_middle_has_its_own_rate_not_the_average() -> None:
    growth = judge(sampled(lambda at: 8 + int(max(0.0, at - 10) * 95), seconds=15.0))
    trend = growth.trends["tcp"]
    assert growth.verdict == "leak"
    assert trend.per_second == pytest.approx(95, rel=0.03)
    assert trend.since == pytest.approx(10.0, abs=0.3)


def test_a_sawtooth_is_steady() -> None:
    assert judge(sampled(lambda at: 10 + int(at * 40) % 100)).verdict == "steady"


def test_a_warm_up_that_has_ended_is_steady() -> None:
    assert judge(sampled(lambda at: min(60, int(at * 30)))).verdict == "steady"


def test_a_warm_up_that_goes_on_is_unknown() -> None:
    growth = judge(sampled(lambda at: round(100 * (1 - 2.718 ** (-at / 4)))))
    assert growth.verdict == "unknown"
    assert "warm-up" in growth.trends["tcp"].reason


def test_a_pool_that_comes_back_after_an_outage_is_steady() -> None:
    growth = judge(sampled(lambda at: 100 if at < 3 else min(100, int((at - 3) * 10))))
    assert growth.verdict == "steady"


def test_coming_back_to_a_level_from_before_the_window_is_steady() -> None:
    samples = sampled(lambda at: 5 if at < 5 else 6)
    assert judge(samples).verdict == "unknown"
    assert judge(samples, prior_peaks={"tcp": 6}).verdict == "steady"


def test_one_more_in_ten_seconds_is_unknown_with_a_time_to_observe_for() -> None:
    growth = judge(sampled(lambda at: 10 + (at >= 6)))
    assert growth.verdict == "unknown"
    assert (growth.trends["tcp"].observe_s or 0) >= 60


def test_a_process_that_stands_at_its_limit_after_leaking_leaks() -> None:
    growth = judge(sampled(lambda at: min(200, 20 + int(at * 30)), seconds=15.0), limit=200)
    assert growth.verdict == "leak"
    assert growth.seconds_to_limit == 0.0


def test_near_the_limit_without_growth() -> None:
    assert judge(sampled(lambda _: 95), limit=100).verdict == "near-limit"
    assert judge(sampled(lambda _: 85), limit=100).verdict == "steady"


def test_too_short_an_observation_decides_nothing() -> None:
    assert judge(sampled(lambda _: 9, seconds=1.0)).verdict == "unknown"
    assert judge(sampled(lambda at: 9 + int(at * 100), seconds=1.0)).verdict == "unknown"


def test_no_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        judge([])


def test_one_kind_that_replaces_another_is_seen_while_the_total_stands_still() -> None:
    samples = [Sample(i / 10, 200, {"tcp": 100 - i, "eventfd": 100 + i}) for i in range(101)]
    growth = judge(samples)
    assert growth.verdict == "leak"
    assert list(growth.leaks()) == ["eventfd"]


def test_totals_alone_are_judged_when_kinds_cannot_be_read() -> None:
    samples = [Sample(i / 10, 10 + i) for i in range(101)]
    growth = judge(samples)
    assert growth.verdict == "leak"
    assert growth.per_second == pytest.approx(10, rel=0.02)


def test_kinds_are_carried_on_over_samples_without_them() -> None:
    samples = [Sample(0.0, 3, {"file": 3}), Sample(1.0, 5, {"file": 3, "tcp": 2}), Sample(9.0, 5)]
    assert series_of_kinds(samples) == {"file": [(0.0, 3), (1.0, 3), (9.0, 3)], "tcp": [(0.0, 0), (1.0, 2), (9.0, 2)]}


def test_seconds_to() -> None:
    assert seconds_to(1024, 24, 10.0) == 100.0
    assert seconds_to(1024, 2000, 10.0) == 0.0
    assert seconds_to(1024, 24, 0.0) is None
    assert seconds_to(None, 24, 10.0) is None


@given(COUNTS)
def test_the_envelope_is_below_never_falls_and_ends_at_the_last_count(counts: list[int]) -> None:
    floor = [count for _, count in envelope(points(counts))]
    assert all(low <= count for low, count in zip(floor, counts, strict=True))
    assert floor == sorted(floor)
    assert floor[-1] == counts[-1]
    assert floor[0] == min(counts)


@given(COUNTS)
def test_what_never_rises_for_good_is_never_a_leak(counts: list[int]) -> None:
    back = [*counts, min(counts)]
    assert trend_of(points(back)).verdict != "leak"


@given(COUNTS, st.integers(0, 1000), st.floats(-1e6, 1e6))
def test_neither_the_level_nor_the_clock_matters(counts: list[int], level: int, clock: float) -> None:
    here = [(index * 0.125, count) for index, count in enumerate(counts)]
    there = [(clock // 1 + at, count + level) for at, count in here]
    first, second = trend_of(here), trend_of(there)
    assert first.verdict == second.verdict
    assert first.per_second == pytest.approx(second.per_second, rel=1e-6)


@given(st.integers(1, 200), st.integers(0, 60), st.integers(0, 100))
def test_any_steady_leak_is_found_at_its_rate_wherever_it_begins(rate: int, onset_tenths: int, base: int) -> None:
    onset = onset_tenths / 10
    trend = trend_of(points([base + int(max(0.0, i / 10 - onset) * rate) for i in range(161)]))
    assert trend.verdict == "leak"
    assert trend.per_second == pytest.approx(rate, rel=0.15, abs=0.3)


@given(COUNTS)
def test_falls_measure_backwards_rises(counts: list[int]) -> None:
    deepest = max((a - b for i, a in enumerate(counts) for b in counts[i:]), default=0)
    assert deepest_fall(points(counts)) == deepest


@given(st.lists(st.integers(0, 50), min_size=2, max_size=30))
def test_kendall_tau_is_between_its_bounds_and_turns_with_the_series(values: list[int]) -> None:
    assert -1.0 <= kendall_tau(values) <= 1.0
    assert kendall_tau(values[::-1]) == pytest.approx(-kendall_tau(values))


@given(st.floats(0.1, 500), st.integers(0, 1000))
def test_the_slope_of_a_straight_line(rate: float, base: int) -> None:
    line = [(index / 10, base + round(rate * index / 10)) for index in range(200)]
    assert slope(line) == pytest.approx(rate, rel=0.05, abs=0.1)


@given(COUNTS)
def test_the_onset_is_a_sample(counts: list[int]) -> None:
    assert 0 <= onset_of(envelope(points(counts))) < len(counts)


def test_what_only_the_last_look_saw_has_not_stayed() -> None:
    points = [(index / 10, 5) for index in range(100)]
    assert trend_of([*points, (10.0, 7)]).verdict == "steady"
    assert trend_of([*points, (10.0, 7), (10.1, 7)]).verdict == "unknown"
    assert trend_of([*points[:2], (0.3, 7)]).verdict == "unknown"
