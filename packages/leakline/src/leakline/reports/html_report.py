"""The report as one HTML file: opens offline and loads nothing, light and dark, on a phone and on paper.

A view of the same report as the terminal's. Jinja2 escapes whatever is put into the page; it is imported here alone.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakline import __version__
from leakline.durations import in_words
from leakline.facts import Finding, Origin
from leakline.figures import rate_text
from leakline.growth import series_of_kinds
from leakline.observe import Report
from leakline.recorder.headline import by_headline
from leakline.reports import chart, icicle
from leakline.reports.origins import frames_shown, history, named
from leakline.reports.style import grouped, printable
from leakline.reports.terminal import evidence_lines, growth_text, headline, ruled_out_rows, unrecorded_lines

if TYPE_CHECKING:
    from jinja2 import Template

_PAGE = Path(__file__).parent / "page"
_ORIGINS_OF_A_FINDING = 5
_ORIGINS_OF_A_KIND = 10


def render(report: Report, now: datetime, why: str = "") -> str:
    """The whole file. `now` (local time) is when the report was made; `why`: what called for it before the end."""
    script = (_PAGE / "icicle.js").read_text()
    return _template().render(
        report=report,
        why=why,
        headline=headline(report, now),
        facts=_facts(report, now),
        share=100 * report.total / report.limit if report.limit else None,
        findings=[_finding(each) for each in report.findings],
        chart=chart.stacked(report.samples, report.limit),
        kinds=_kinds(report),
        boxes=icicle.boxes(report.recorded.alive) if report.recorded else (),
        opened=_opened(report),
        unrecorded=unrecorded_lines(report.recorded) if report.recorded else [],
        version=__version__,
        made=f"{now:%Y-%m-%d %H:%M:%S}",
        css=(_PAGE / "style.css").read_text(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(grouped=grouped, printable=printable, in_words=in_words)
    return environment.get_template("page.html")


def _facts(report: Report, now: datetime) -> list[tuple[str, str]]:
    limits = report.limits
    found = [("Process", f"{report.pid}")]
    used = grouped(report.total) if not report.limit else f"{grouped(report.total)} of {grouped(report.limit)}"
    found.append(("Open", used))
    if report.highest is not None:
        found.append(("Highest number", grouped(report.highest)))
    if limits is not None:
        ceiling = "" if limits.ceiling is None else f", --limit {grouped(limits.ceiling)}"
        found.append(("Limits", f"soft {grouped(limits.soft)}, hard {grouped(limits.hard)}{ceiling}"))
    seen = "Recorded" if report.recorded is not None and not report.samples else "Observed"
    found.append((seen, f"{in_words(report.seconds)}{', then it ended' if report.ended else ''}"))
    found.append(("Made", f"{now:%d %b %Y, %H:%M:%S}"))
    return found


def _kinds(report: Report) -> list[dict[str, Any]]:
    trends = report.judged.trends if report.judged else {}
    series = series_of_kinds(report.samples) if report.samples else {}
    kinds = [*report.counts, *(kind for kind in trends if kind not in report.counts and trends[kind].risen)]
    return [
        {
            "name": kind,
            "count": report.counts.get(kind, 0),
            "growth": growth_text(trends.get(kind)),
            "verdict": trends[kind].verdict if kind in trends and growth_text(trends[kind]) else "",
            "spark": chart.spark(series.get(kind, ())),
        }
        for kind in kinds
    ]


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "it": finding,
        "rate": f"+{rate_text(finding.per_second)}" if finding.per_second > 0 else "",
        "evidence": evidence_lines(finding.evidence),
        "ruled_out": ruled_out_rows(finding.ruled_out),
        "origins": _origins(finding.origins, _ORIGINS_OF_A_FINDING),
        "more": max(0, len(by_headline(finding.origins)) - _ORIGINS_OF_A_FINDING),
    }


def _opened(report: Report) -> list[dict[str, Any]]:
    """Lines by kind, as the terminal's last part."""
    kinds: dict[str, list[Origin]] = {}
    for each in report.recorded.alive if report.recorded else ():
        kinds.setdefault(each.kind, []).append(each.origin)
    return [
        {
            "kind": kind,
            "count": sum(origin.count for origin in origins),
            "origins": _origins(origins, _ORIGINS_OF_A_KIND),
            "more": max(0, len(by_headline(origins)) - _ORIGINS_OF_A_KIND),
        }
        for kind, origins in kinds.items()
    ]


def _origins(origins: list[Origin] | tuple[Origin, ...], most: int) -> list[dict[str, Any]]:
    return [
        {
            "count": origin.count,
            "function": named(origin.frames[origin.headline])[0],
            "place": named(origin.frames[origin.headline])[1],
            "history": history(origin),
            "frames": [
                {
                    "function": named(frame)[0],
                    "place": named(frame)[1],
                    "hidden": hidden,
                    "here": frame is origin.frames[origin.headline],
                }
                for frame, hidden in frames_shown(origin)
            ],
        }
        for origin in by_headline(origins)[:most]
    ]
