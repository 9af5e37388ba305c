"""The live view of one process: a screen for a terminal, a line for a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime

from leakline.durations import in_words
from leakline.facts import Finding, Sample
from leakline.growth import series_of_kinds
from leakline.observe import Report
from leakline.reports.style import Style, grouped
from leakline.reports.terminal import verdict_lines
from leakline.rules.growing import rate_text
from leakline.rules.standstill import Standstill

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
    lines.append(
        style.paint(f"  {'kind':{wide}}  {'count':>7}  {f'last {report.seconds:.0f} s':{cells}}  growth", "dim")
    )
    total = [float(sample.total) for sample in samples]
    lines.append(f"  {'total':{wide}}  {grouped(report.total):>7}  {style.sparkline(total, cells)}")
    for kind, count in report.counts.items():
        chart = style.sparkline(_evenly([(at, value) for at, value in series.get(kind, [])], cells), cells)
        rate = report.growth.get(kind)
        growth = "" if rate is None else f"+{rate_text(rate)}"
        row = f"  {kind:{wide}}  {grouped(count):>7}  {chart:{cells}}  {growth}".rstrip()
        lines.append(style.paint(row, "red") if rate is not None and report.verdict == "leak" else row)
    lines += ["", *_threads(threads, style)] if threads else []
    lines += [""] if report.findings else []
    for finding in report.findings[:_FINDINGS_SHOWN]:
        lines += finding_lines(finding, style)
    lines += ["", style.paint(f"{report.pid}  {report.command}  (Ctrl-C ends)", "dim")]
    return "\n".join(style.plain(line) for line in lines)


def finding_lines(finding: Finding, style: Style) -> list[str]:
    """The id and the title of a finding, in as many lines as they need."""
    wrapped = textwrap.wrap(f"{finding.severity}: {finding.id}: {finding.title}", style.width, subsequent_indent="  ")
    return [style.paint(line, "cyan" if finding.severity == "note" else "yellow") for line in wrapped]


def _threads(threads: Sequence[Standstill], style: Style) -> list[str]:
    lines = []
    for thread in threads:
        if thread.seconds >= 1.0:
            text = f"blocked for {thread.seconds:.0f} s in {(thread.wait_channel or '?').partition('.')[0]}"
            lines.append(f"  {thread.name:15}  " + style.paint(text, "red"))
        else:
            lines.append(
                f"  {thread.name:15}  runs" + (", sleeps in epoll" if "poll" in (thread.wait_channel or "") else "")
            )
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
