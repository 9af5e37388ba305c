"""Counts over time as shapes, in percent of a chart's width and height (from its top left corner). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from leakline.facts import Sample
from leakline.growth import Point, series_of_kinds

_COLUMNS = 240  # as many as can be told apart on a page
KINDS_SHOWN = 7
OTHERS = "others"
_FLAT_STRETCH = 0.15  # of the height, at which a count stands that never moved
_NEAR = 2.0  # a limit within so many times the highest count is worth the room


class Area(msgspec.Struct, frozen=True):
    """One kind's layer of the stack: an SVG path in a box of 100 by 100."""

    kind: str
    path: str
    last: int


class Tick(msgspec.Struct, frozen=True):
    """A labelled place on an axis, in percent."""

    at: float
    label: str


class Chart(msgspec.Struct, frozen=True):
    """All kinds upon each other, from zero. `limit_at`: where the limit is, if there is room for it."""

    areas: tuple[Area, ...]
    counts: tuple[Tick, ...]
    seconds: float
    limit_at: float | None


def stacked(samples: Sequence[Sample], limit: int | None) -> Chart | None:
    """None for fewer than two samples with kinds: there is nothing to draw."""
    series = series_of_kinds(samples)
    if not series or len(next(iter(series.values()))) < 2:
        return None
    times = [at for at, _ in next(iter(series.values()))]
    counts = {kind: [count for _, count in points] for kind, points in series.items()}
    kinds = sorted(counts, key=lambda kind: (-max(counts[kind]), kind))
    layers = {kind: counts[kind] for kind in kinds[:KINDS_SHOWN]}
    if len(kinds) > KINDS_SHOWN:
        layers[OTHERS] = [sum(column) for column in zip(*(counts[kind] for kind in kinds[KINDS_SHOWN:]), strict=True)]
    totals = [sum(column) for column in zip(*layers.values(), strict=True)]
    chosen = _peaks(times, totals)
    highest = max(totals)
    shown = limit is not None and limit <= highest * _NEAR
    steps = ticks(max(highest, limit if shown and limit else 0))
    top = steps[-1]
    floor = [0.0] * len(chosen)
    areas = []
    span = (times[-1] - times[0]) or 1.0
    across = [100 * (times[index] - times[0]) / span for index in chosen]
    for kind, values in layers.items():
        ceiling = [below + 100 * values[index] / top for below, index in zip(floor, chosen, strict=True)]
        areas.append(Area(kind, _band(across, floor, ceiling), values[-1]))
        floor = ceiling
    marks = tuple(Tick(100 - 100 * step / top, f"{step:,}".replace(",", " ")) for step in steps)
    return Chart(tuple(areas), marks, span, 100 - 100 * limit / top if shown and limit else None)


def spark(points: Sequence[Point]) -> str:
    """One kind by itself, between its lowest and its highest count, as the points of an SVG polyline in 100 by 100."""
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return ""
    low, high = min(count for _, count in points), max(count for _, count in points)
    begin, span = points[0][0], points[-1][0] - points[0][0]
    drawn = []
    for at, count in _extremes(points):
        height = _FLAT_STRETCH if high == low else (count - low) / (high - low)
        drawn.append(f"{_short(100 * (at - begin) / span)},{_short(95 - 90 * height)}")
    return " ".join(drawn)


def ticks(highest: int) -> tuple[int, ...]:
    """From 0 to at least `highest`, in two to five round steps."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor * 5 >= highest:
                size = step * factor
                return tuple(range(0, size * max(2, -(-highest // size)) + 1, size))
        step *= 10


def _peaks(times: Sequence[float], totals: Sequence[int]) -> list[int]:
    """For each column of the chart the index of its highest total; first and last always."""
    groups = _columns(times)
    chosen = {max(group, key=lambda index: totals[index]) for group in groups}
    return sorted({0, len(times) - 1} | chosen)


def _extremes(points: Sequence[Point]) -> list[Point]:
    found: list[Point] = [points[0]]
    for group in _columns([at for at, _ in points]):
        low = min(group, key=lambda index: points[index][1])
        high = max(group, key=lambda index: points[index][1])
        found += [points[index] for index in sorted({low, high})]
    return [*found, points[-1]]


def _columns(times: Sequence[float]) -> list[list[int]]:
    begin, span = times[0], (times[-1] - times[0]) or 1.0
    groups: dict[int, list[int]] = {}
    for index, at in enumerate(times):
        groups.setdefault(int((at - begin) / span * (_COLUMNS - 1)), []).append(index)
    return list(groups.values())


def _band(across: Sequence[float], floor: Sequence[float], ceiling: Sequence[float]) -> str:
    """The area between two lines. Points on a straight line between their neighbours are left out."""
    upper = _straightened(list(zip(across, ceiling, strict=True)))
    lower = _straightened(list(zip(across, floor, strict=True)))
    points = [*upper, *reversed(lower)]
    return "M" + "L".join(f"{_short(x)} {_short(100 - y)}" for x, y in points) + "Z"


def _straightened(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    flat = [
        point
        for (_, before), point, (_, after) in zip(points, points[1:], points[2:], strict=False)
        if not before == point[1] == after
    ]
    return [points[0], *flat, points[-1]] if len(points) > 2 else points


def rises(points: Sequence[Point]) -> bool:
    """Whether a count moved at all."""
    return any(before != after for (_, before), (_, after) in pairwise(points))


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
