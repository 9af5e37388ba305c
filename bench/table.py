"""Samples -> the table: medians, ranges and ratios to a peer. Pure.

A ratio is the median of the quotients *within each round*: both numbers of a quotient were measured within seconds of
each other, so slow drift of the machine cancels. It may differ a little from the quotient of the two medians shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.rounds import Row, Sample

Samples = Mapping[Row, Sequence[Sample]]
METRICS: dict[str, Callable[[Sample], float]] = {
    "calls_per_s": lambda sample: sample.calls_per_s,
    "cpu_us": lambda sample: sample.cpu_us,
    "p50_us": lambda sample: sample.p50_us,
    "p99_us": lambda sample: sample.p99_us,
}


def ratio(samples: Sequence[Sample], base: Sequence[Sample], metric: str) -> dict[str, float]:
    """Compare with `base` round by round."""
    value = METRICS[metric]
    return _spread([value(one) / value(other) for one, other in zip(samples, base, strict=True)])


def summary(samples: Samples, bases: Mapping[str, Row]) -> list[dict[str, Any]]:
    """Give for each row and metric the median, lowest and highest value and the ratios to `bases`, ready for JSON."""
    rows = []
    for row, measured in samples.items():
        metrics: dict[str, Any] = {}
        for metric, value in METRICS.items():
            metrics[metric] = _spread([value(sample) for sample in measured]) | {
                "rounds": [value(sample) for sample in measured],
                "ratio": {name: ratio(measured, samples[base], metric) for name, base in bases.items()},
            }
        rows.append({"system": row.system, "loop": row.loop, "metrics": metrics})
    return rows


def render(samples: Samples, bases: Mapping[str, Row]) -> str:
    """Give the aligned table; one line a row, in the order of `samples`."""
    ratios = [f"× {name}" for name in bases]
    lines = [["system", "calls/s", "[min–max]", *ratios, "p50 µs", "[min–max]", *ratios, "p99 µs", "[min–max]"]]
    for entry in summary(samples, bases):
        line = [f"{entry['system']} ({entry['loop']})"]
        for metric in ("calls_per_s", "p50_us", "p99_us"):
            figures = entry["metrics"][metric]
            line += [f"{figures['median']:,.0f}", f"[{figures['lowest']:,.0f}–{figures['highest']:,.0f}]"]
            if metric != "p99_us":
                line += [f"{figures['ratio'][name]['median']:.2f}" for name in bases]
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "lowest": min(values), "highest": max(values)}


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures = line
    return "  ".join(
        [name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(figures, widths[1:], strict=True))]
    )
