"""The live view of one process: a screen for a terminal, a line for a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime

from leakline.durations import in_words
from leakline.facts import Finding, Sample
from leakline.figures import rate_text
from leakline.growth import series_of_kinds
from leakline.observe import Report
from leakline.reports.style import Style, grouped, printable
from leakline.reports.terminal import verdict_lines
from leakline.rules.standstill import Standstill
from leakline.rules.zeromq import MIN_BLOCKED_S

CELLS = 40
_FINDINGS_SHOWN = 6


def line(report: Report) -> str:
    """`03:14:07  leak  130 of 1 024  eventfd=122 tcp=3  eventfd +20 per second  45 s left`."""
    of = "" if report.limit is None else f" of {grouped(report.limit)}"
    counts = " ".join(f"{kind}={count}" for kind, count in report.counts.items())
    rates = ", ".join(f"{kind} +{rate_text(rate)}" for kind, rate in report.growth.items())
    left = "" if report.seconds_to_limit is None else f"{in_words(report.seconds_to_limit)} left"
    parts = [f"{datetime.now():%H:%M:%S}", report.verdict, f"{grouped(report.total)}{of}", counts, rates, left]
    return "  ".join(part for part in parts if part)


def screen(
    report: Report, samples: Sequence[Sample], threads: Sequence[Standstill], style: Style, now: datetime
) -> str:
    """All that is known by now, as lines with ANSI colours where the style has them."""
    lines = [*verdict_lines(report, style, now), ""]
    series = series_of_kinds(samples)
    wide = max([len(kind) for kind in report.counts] + [5])
    cells = max(8, min(CELLS, style.width - wide - 36))
    head = f"  {'kind':{wide}}  {'count':>7}  {f'last {report.seconds:.0f} s':{cells}}  growth"
    lines.append(style.paint(style.cut(head), "dim"))
    charts = {"total": [(sample.at, sample.total) for sample in samples], **series}
    for kind, count in {"total": report.total, **report.counts}.items():
        chart = style.sparkline(_evenly(charts.get(kind, []), cells), cells)
        rate = report.growth.get(kind)
        growth = "" if rate is None else f"+{rate_text(rate)}"
        row = style.cut(f"  {kind:{wide}}  {grouped(count):>7}  {chart:{cells}}  {growth}".rstrip())
        lines.append(style.paint(row, "red") if rate is not None and report.verdict == "leak" else row)
    lines += ["", *_threads(threads, style)] if threads else []
    lines += [""] if report.findings else []
    for finding in report.findings[:_FINDINGS_SHOWN]:
        lines += finding_lines(finding, style)
    lines += ["", style.paint(style.cut(f"(Ctrl-C ends)  {report.pid}  {printable(report.command)}"), "dim")]
    return "\n".join(style.plain(line) for line in lines)


def finding_lines(finding: Finding, style: Style) -> list[str]:
    """The id and the title of a finding, in as many lines as they need."""
    wrapped = textwrap.wrap(
        f"{finding.severity}: {finding.id}: {printable(finding.title)}", style.width, subsequent_indent="  "
    )
    return [style.paint(line, "cyan" if finding.severity == "note" else "yellow") for line in wrapped]


def _threads(threads: Sequence[Standstill], style: Style) -> list[str]:
    lines = []
    for thread in threads:
        blocked = thread.seconds >= MIN_BLOCKED_S
        where = (thread.wait_channel or "?").partition(".")[0]
        text = f"blocked for {thread.seconds:.0f} s in {where}" if blocked else "healthy"
        row = style.cut(f"  {printable(thread.name):15}  {text}")
        lines.append(style.paint(row, "red") if blocked else row)
    return lines


def _evenly(points: Sequence[tuple[float, int]], cells: int) -> list[float]:
    """The series at even steps of time: kinds are not read at an even pace."""
    if not points:
        return []
    start, end = points[0][0], points[-1][0]
    values, index = [], 0
    for cell in range(cells):
        moment = start + (end - start) * cell / max(1, cells - 1)
        while index + 1 < len(points) and points[index + 1][0] <= moment:
            index += 1
        values.append(float(points[index][1]))
    return values
