"""Does a count grow, how fast, until when: samples in, judgement out. No I/O and no clock. docs/verdict.md has the
figures.

What is looked at is the lower envelope, `e(t) = min n(s) for s >= t`: the level that the count never fell below again.
A pool that opens and closes has a flat envelope however wildly it moves; a leak lifts it, whatever happens on top.
From the envelope follow the onset (a leak may begin in the middle of the observation), the rate (Theil-Sen slope since
then: a burst at one end does not move a median) and the tests that a leak must pass:

1. seen long enough: `MIN_SPAN_S` since the onset, `MIN_RISES` separate rises;
2. steady upward: Kendall's tau of the minima of `BUCKETS` equal stretches is at least `MIN_TAU`;
3. beyond fluctuation: it rose `DRAWDOWN_FACTOR` times as much as the count ever fell within the observation;
4. going on: no pause at the end that is long beside the pauses before, and no slowing down (that is a warm-up).

A rise that fails a test is `unknown` with a time to observe for, unless what was seen shows that it is no leak
(steady).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

import msgspec

from leakline.facts import Sample, Verdict

MIN_SPAN_S = 3.0
MIN_RISES = 6
BUCKETS = 10
MIN_TAU = 0.7
FLUCTUATION_TAU = 0.5  # over all that was seen; a rise among falls of its own size with less than this is fluctuation
DRAWDOWN_FACTOR = 3.0
SLOWING = 0.4  # the last third's rate beside the first third's: below this, growth is running out
PAUSE_FACTOR = 4.0  # the pause at the end beside the longest pause between rises: above this, growth has stopped
PASSING_S = 1.5  # a rise that is in the last sample alone, so soon after the one before, is none yet
NEAR_LIMIT = 0.9  # share of the limit in use from which a process is near it
TOTAL = "total"
_MAX_POINTS = 120  # Theil-Sen looks at every pair: 120 points are 7 140 pairs (2 ms)

Point = tuple[float, int]


class Trend(msgspec.Struct, frozen=True):
    """How one count behaved. `per_second` is 0.0 where nothing stays; `since` is the onset in the samples' own clock.

    `observe_s`: how long to observe for a decision, when the verdict is unknown. `bound_per_second`: for a steady
    count, the fastest leak that would have gone unseen (95 %, rule of three).
    """

    verdict: Verdict  # leak, steady or unknown
    reason: str
    per_second: float = 0.0
    since: float | None = None
    risen: int = 0
    rises: int = 0
    drawdown: int = 0
    observe_s: float | None = None
    bound_per_second: float | None = None


class Growth(msgspec.Struct, frozen=True):
    """The judgement over all kinds of one process. `at` is the time of the last sample."""

    verdict: Verdict
    seconds: float
    total: int
    limit: int | None
    at: float
    trends: dict[str, Trend]
    per_second: float
    seconds_to_limit: float | None

    def leaks(self) -> dict[str, Trend]:
        """The kinds that leak, fastest first."""
        found = {kind: trend for kind, trend in self.trends.items() if trend.verdict == "leak"}
        return dict(sorted(found.items(), key=lambda item: -item[1].per_second))

    def rates(self) -> dict[str, float]:
        """Descriptors per second of each kind that leaks, or whose growth is too little seen to tell; fastest first."""
        rates = {kind: trend.per_second for kind, trend in self.trends.items() if trend.per_second > 0}
        return dict(sorted(rates.items(), key=lambda item: -item[1]))


def judge(samples: Sequence[Sample], limit: int | None = None, prior_peaks: dict[str, int] | None = None) -> Growth:
    """Judge a series of samples, oldest first. At least one is needed (ValueError).

    `prior_peaks`: the highest count of each kind (and of "total") shortly before the first sample, where it is known:
    to come back to a level that was held a moment ago is no growth.
    """
    if not samples:
        raise ValueError("no samples: nothing was observed")
    peaks = prior_peaks or {}
    last = samples[-1]
    series = series_of_kinds(samples)
    capped = limit is not None and last.total >= limit
    trends = {kind: trend_of(points, peaks.get(kind, 0), capped=capped) for kind, points in series.items()}
    if not series:  # kinds could not be read: the total is all there is
        whole = [(sample.at, sample.total) for sample in samples]
        trends[TOTAL] = trend_of(whole, peaks.get(TOTAL, 0), capped=capped)
    rate = sum(trend.per_second for trend in trends.values() if trend.verdict == "leak")
    return Growth(
        verdict=_verdict(trends, last.total, limit),
        seconds=last.at - samples[0].at,
        total=last.total,
        limit=limit,
        at=last.at,
        trends=trends,
        per_second=rate,
        seconds_to_limit=seconds_to(limit, last.total, rate),
    )


def seconds_to(limit: int | None, total: int, per_second: float) -> float | None:
    """Seconds until `total` reaches `limit` at that rate; 0.0 when it is there already, None when it never will."""
    if limit is None or per_second <= 0:
        return None
    return max(0.0, (limit - total) / per_second)


def series_of_kinds(samples: Iterable[Sample]) -> dict[str, list[Point]]:
    """One series a kind, from the samples that have kinds; a kind that is absent counts 0. Kinds are carried on to a
    last sample without them, since they are left out only while the total stands still."""
    known: list[tuple[float, dict[str, int]]] = []
    for sample in samples:
        if sample.kinds is not None:
            known.append((sample.at, sample.kinds))
    names = sorted({kind for _, kinds in known for kind in kinds})
    end = sample.at if known else 0.0
    series = {kind: [(at, kinds.get(kind, 0)) for at, kinds in known] for kind in names}
    if known and end > known[-1][0]:
        for points in series.values():
            points.append((end, points[-1][1]))
    return series


def trend_of(points: Sequence[Point], prior_peak: int = 0, *, capped: bool = False) -> Trend:
    """Judge one count. `capped`: the process stands at its limit, so growth that has stopped has only run into it."""
    if len(points) < 2:
        return Trend("unknown", "only one look at it", observe_s=MIN_SPAN_S * 2)
    span = points[-1][0] - points[0][0]
    drawdown = deepest_fall(points)
    floor = envelope(points)
    if capped:
        floor = _until_last_rise(floor)
    since = floor[onset_of(floor) :]
    risen = floor[-1][1] - floor[0][1]
    fluctuates = risen < DRAWDOWN_FACTOR * drawdown and kendall_tau(_bucket_minima(points)) < FLUCTUATION_TAU
    # What the last look alone saw may be gone in the next: a connection attempt, a file that is open for a moment.
    passing = floor[-2][1] == floor[0][1] and floor[-1][0] - floor[-2][0] < PASSING_S and not capped
    if risen <= drawdown or fluctuates or passing or floor[-1][1] <= prior_peak or span <= 0:
        return _steady(span, drawdown, risen)
    rises = _rises(since)
    rate = slope(since) if rises >= MIN_RISES else 0.0
    seen = Trend(
        verdict="unknown",
        reason="",
        per_second=rate if rate > 0 else risen / span,
        since=since[0][0],
        risen=risen,
        rises=rises,
        drawdown=drawdown,
    )
    return _tested(seen, since, span, capped=capped)


def _tested(seen: Trend, since: Sequence[Point], span: float, *, capped: bool) -> Trend:
    """Put a rise to the tests of the head of this file, in the order in which their answers are the most useful."""
    pause = since[-1][0] - _last_rise(since)
    if not capped and seen.rises > 1 and pause > max(PAUSE_FACTOR * _longest_pause(since), 1.0):
        if pause >= max(MIN_SPAN_S, span / 3):
            return msgspec.structs.replace(
                _steady(span, seen.drawdown, seen.risen), reason=f"rose by {seen.risen}, then stopped"
            )
        return _unknown(seen, f"rose by {seen.risen}, and pauses since {pause:.1f} s", span + 3 * pause)
    lasted = since[-1][0] - since[0][0]
    if seen.rises < MIN_RISES or lasted < MIN_SPAN_S:
        needed = max(MIN_RISES * 1.5 * lasted / max(seen.rises, 1), MIN_RISES * 1.5 * span / max(seen.rises, 1))
        reason = f"rose by {seen.risen} in {seen.rises} step{'s' if seen.rises > 1 else ''}: too little seen"
        return _unknown(seen, reason, max(needed, 2 * MIN_SPAN_S) if seen.rises < MIN_RISES else span + MIN_SPAN_S)
    if seen.risen < DRAWDOWN_FACTOR * seen.drawdown:
        return _unknown(seen, f"rose by {seen.risen}, but it also fell by {seen.drawdown} meanwhile", 2 * span)
    if kendall_tau(_bucket_minima(since)) < MIN_TAU:
        return _unknown(seen, f"rose by {seen.risen}, unevenly", 2 * span)
    if not capped and _slowing(since):
        return _unknown(seen, f"rose by {seen.risen}, slower and slower, like a warm-up", 2 * span)
    return msgspec.structs.replace(
        seen, verdict="leak", reason=f"rose by {seen.risen} in {lasted:.0f} s and never fell back"
    )


def _unknown(seen: Trend, reason: str, observe_s: float) -> Trend:
    return msgspec.structs.replace(seen, reason=reason, observe_s=float(-(-observe_s // 5) * 5))


def _steady(span: float, drawdown: int, risen: int) -> Trend:
    if span < MIN_SPAN_S:
        return Trend("unknown", f"seen for {span:.1f} s only", drawdown=drawdown, observe_s=2 * MIN_SPAN_S)
    reason = "did not move" if not risen and not drawdown else f"moved within {max(drawdown, risen)}, nothing stayed"
    return Trend("steady", reason, drawdown=drawdown, bound_per_second=3.0 / span)


def _verdict(trends: dict[str, Trend], total: int, limit: int | None) -> Verdict:
    verdicts = {trend.verdict for trend in trends.values()}
    if "leak" in verdicts:
        return "leak"
    if limit is not None and total >= NEAR_LIMIT * limit:
        return "near-limit"
    return "unknown" if "unknown" in verdicts else "steady"


def envelope(points: Sequence[Point]) -> list[Point]:
    """The lower envelope: at each time, the least count from then on. Never falls."""
    floor: list[Point] = []
    least = points[-1][1]
    for at, count in reversed(points):
        least = min(least, count)
        floor.append((at, least))
    floor.reverse()
    return floor


def deepest_fall(points: Sequence[Point]) -> int:
    """How far the count ever fell below a level that it had before (the maximum drawdown)."""
    peak, deepest = points[0][1], 0
    for _, count in points:
        peak = max(peak, count)
        deepest = max(deepest, peak - count)
    return deepest


def onset_of(floor: Sequence[Point]) -> int:
    """Index at which growth begins: the bend of `flat, then a straight line` that fits the envelope best (least
    squares).

    The squares of the flat part come from running sums, those of the line from a fit through the bend, so that each
    candidate costs O(1) and the whole O(n).
    """
    start, base = floor[0]
    if floor[-1][1] == base:
        return 0
    # Sums over the points after each candidate, of x = t - start and y = n - base.
    n = sx = sxx = sy = sxy = 0.0
    best, best_gain = 0, 0.0
    for index in range(len(floor) - 1, -1, -1):
        x, y = floor[index][0] - start, float(floor[index][1] - base)
        n, sx, sxx, sy, sxy = n + 1, sx + x, sxx + x * x, sy + y, sxy + x * y
        # A line through (x, 0): its square error falls short of the flat line's by (sum (xi-x) y)^2 / sum (xi-x)^2.
        square = sxx - 2 * x * sx + n * x * x
        along = sxy - x * sy
        gain = along * along / square if square > 1e-12 and along > 0 else 0.0
        if gain > best_gain:
            best, best_gain = index, gain
    return max(0, best - 1)  # the sample before the bend, so that the first step counts as a rise


def slope(points: Sequence[Point]) -> float:
    """Theil-Sen: the median of the slopes of all pairs of points, per second. 0.0 if all are at one time."""
    thin = _thinned(points)
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(thin)
        for later in thin[index + 1 :]
        if later[0] > earlier[0]
    ]
    return float(median(slopes)) if slopes else 0.0


def kendall_tau(values: Sequence[int]) -> float:
    """Kendall's rank correlation of a series with time (the Mann-Kendall statistic over its maximum): 1.0 = always
    up.
    """
    pairs = len(values) * (len(values) - 1) // 2
    if not pairs:
        return 0.0
    score = sum(
        (later > earlier) - (later < earlier) for index, earlier in enumerate(values) for later in values[index + 1 :]
    )
    return score / pairs


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    if len(points) <= _MAX_POINTS:
        return points
    step = (len(points) - 1) / (_MAX_POINTS - 1)
    return [points[round(index * step)] for index in range(_MAX_POINTS)]


def _bucket_minima(points: Sequence[Point]) -> list[int]:
    """The least count of each of `BUCKETS` equal stretches of time; stretches without a sample are left out."""
    start, end = points[0][0], points[-1][0]
    width = (end - start) / BUCKETS or 1.0
    minima: dict[int, int] = {}
    for at, count in points:
        bucket = min(BUCKETS - 1, int((at - start) / width))
        minima[bucket] = min(count, minima.get(bucket, count))
    return [minima[bucket] for bucket in sorted(minima)]


def _moments_of_rise(points: Sequence[Point]) -> list[float]:
    return [later[0] for earlier, later in pairwise(points) if later[1] > earlier[1]]


def _rises(points: Sequence[Point]) -> int:
    return len(_moments_of_rise(points))


def _last_rise(points: Sequence[Point]) -> float:
    moments = _moments_of_rise(points)
    return moments[-1] if moments else points[-1][0]


def _longest_pause(points: Sequence[Point]) -> float:
    moments = [points[0][0], *_moments_of_rise(points)]
    return max(later - earlier for earlier, later in pairwise(moments))


def _until_last_rise(floor: list[Point]) -> list[Point]:
    """Cut the flat end off: at the limit nothing more can be opened, so standing still says nothing."""
    end = len(floor)
    while end > 2 and floor[end - 1][1] == floor[end - 2][1]:
        end -= 1
    return floor[:end]


def _slowing(points: Sequence[Point]) -> bool:
    start, end = points[0][0], points[-1][0]
    third = (end - start) / 3
    early = _at(points, start + third) - points[0][1]
    late = points[-1][1] - _at(points, end - third)
    return late < SLOWING * early


def _at(points: Sequence[Point], moment: float) -> int:
    """The count at a moment: that of the last point not after it."""
    count = points[0][1]
    for at, value in points:
        if at > moment:
            break
        count = value
    return count
