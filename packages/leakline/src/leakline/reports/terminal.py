"""The report for a person at a terminal, at 3 a.m.: the verdict in the first line, then figures, then each finding."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta

from leakline.durations import in_words
from leakline.facts import Finding, Origin, Recorded
from leakline.figures import rate_text
from leakline.growth import Trend
from leakline.observe import Report
from leakline.reports.origins import origin_lines
from leakline.reports.style import Style, grouped, printable

_COLOURS = {
    "leak": "red",
    "warning": "yellow",
    "near-limit": "yellow",
    "unknown": "yellow",
    "steady": "green",
    "note": "cyan",
}
_ORIGINS_OF_A_KIND = 3
_MARGIN = 13  # where the text of "cause", "remedy", … begins


def render(report: Report, style: Style, now: datetime, why: str = "") -> str:
    """The whole report, without a line end. `now` (local time) is when it was made: forecasts name a time of day.

    `why`: what called for a report before the end.
    """
    lines = [
        *([style.paint(why, "yellow")] if why else []),
        *verdict_lines(report, style, now),
        "",
        *_figures(report, style),
        "",
        *_kinds(report, style),
    ]
    for finding in report.findings:
        lines += ["", *_finding(finding, style)]
    if report.recorded is not None:
        told = [origin for finding in report.findings for origin in finding.origins]
        lines += ["", *recorded_lines(report.recorded, style, told)]
    return "\n".join(style.plain(line) for line in lines)


def verdict_lines(report: Report, style: Style, now: datetime) -> list[str]:
    """What, how fast, until when; under it, of which process."""
    word = report.verdict.upper()
    first, *rest = textwrap.wrap(
        f"{word}  {printable(headline(report, now))}", style.width, subsequent_indent=" " * (len(word) + 2)
    )
    first = style.paint(word, _COLOURS[report.verdict]) + style.paint(first[len(word) :], "bold")
    return [first, *(style.paint(line, "bold") for line in rest)]


def headline(report: Report, now: datetime) -> str:
    """The verdict in words, without its name."""
    total, limit = report.total, report.limit
    of = f"{grouped(total)} descriptors" if limit is None else f"{grouped(total)} of {grouped(limit)} descriptors"
    if report.verdict == "leak":
        return _leak_headline(report, now)
    if report.verdict == "near-limit":
        return f"{of} in use and not growing: the next burst meets EMFILE"
    if report.verdict == "steady" and report.ended and report.recorded is not None:
        done = f"{grouped(report.recorded.opened)} opened, {grouped(report.recorded.closed)} closed"
        return f"{done}; {grouped(total)} were open at its end, and no line piles them up"
    trends = report.judged.trends if report.judged else {}
    if report.verdict == "unknown" and report.stopped:
        return f"the process is stopped: {of} in use, and none can be opened or closed"
    if report.verdict == "unknown":
        if report.ended:
            return f"the process ended after {in_words(report.seconds)}: too little seen"
        seconds = max((trend.observe_s or 0.0 for trend in trends.values()), default=0.0)
        return f"too little seen in {in_words(report.seconds)}: observe for {in_words(seconds)}"
    bound = max((trend.bound_per_second or 0.0 for trend in trends.values()), default=0.0)
    hidden = f"; a leak slower than {rate_text(bound)} would not show in {in_words(report.seconds)}" if bound else ""
    return f"{of} in use, none pile up{hidden}"


def _leak_headline(report: Report, now: datetime) -> str:
    leaks = report.judged.leaks() if report.judged else {}
    if not leaks:  # only the recording knows
        return next((finding.title for finding in report.findings if finding.severity == "leak"), "")
    rates = ", ".join(f"{kind} +{rate_text(trend.per_second)}" for kind, trend in leaks.items())
    if report.seconds_to_limit is None or report.limit is None:
        return rates
    ceiling = "--limit" if report.limits and report.limits.ceiling == report.limit else "limit"
    if report.seconds_to_limit <= 0:
        return f"{rates}; the {ceiling} of {grouped(report.limit)} is reached"
    if report.ended:
        return f"{rates}; the process ended at {grouped(report.total)} of {grouped(report.limit)}"
    left = report.seconds_to_limit
    return f"{rates}; reaches the {ceiling} of {grouped(report.limit)} in {in_words(left)} ({moment(now, left)})"


def moment(now: datetime, seconds: float) -> str:
    """`at 03:14:07`, with the date if that is on another day, and no time at all if it is months away."""
    if seconds > 90 * 86400:
        return "months away"
    then = now + timedelta(seconds=seconds)
    return f"at {then:%H:%M:%S}" if then.date() == now.date() else f"on {then:%d %b at %H:%M}"


def _figures(report: Report, style: Style) -> list[str]:
    room = style.width - _MARGIN - 1
    command = printable(report.command)
    command = command if len(command) <= room else command[: room - 1] + "…"
    lines = [_field("process", f"{report.pid}  {command}", style)]
    used = f"{grouped(report.total)} in use"
    if report.limit:
        used = f"{grouped(report.total)} of {grouped(report.limit)} in use ({100 * report.total / report.limit:.0f} %)"
    highest = "" if report.highest is None else f", highest number {grouped(report.highest)}"
    lines.append(_field("descriptors", used + highest, style))
    if report.limits is not None:
        soft, hard = grouped(report.limits.soft), grouped(report.limits.hard)
        ceiling = "" if report.limits.ceiling is None else f"; --limit {grouped(report.limits.ceiling)}"
        lines.append(_field("limits", f"soft {soft}, hard {hard}{ceiling}", style))
    ended = ", then the process ended" if report.ended else ""
    lines.append(_field("observed", f"{in_words(report.seconds)}{ended}", style))
    return [line for field in lines for line in field.splitlines()]


def _kinds(report: Report, style: Style) -> list[str]:
    trends = report.judged.trends if report.judged else {}
    kinds = list(report.counts) + [kind for kind in trends if kind not in report.counts and trends[kind].risen]
    wide = max([len(kind) for kind in kinds] + [4])
    lines = [style.paint(f"  {'kind':{wide}}  {'count':>7}  growth", "dim")]
    for kind in kinds:
        trend = trends.get(kind)
        growth = growth_text(trend)
        text = f"  {kind:{wide}}  {grouped(report.counts.get(kind, 0)):>7}  "
        room = max(10, style.width - len(text))
        growth = growth if len(growth) <= room else growth[: room - 1] + "…"
        lines.append(text + style.paint(growth, _COLOURS[trend.verdict] if trend and growth and trend.risen else "dim"))
    return [line.rstrip() for line in lines]


def growth_text(trend: Trend | None) -> str:
    """How a kind behaved, in words; "" where it did not move."""
    if trend is None or trend.reason == "did not move":
        return ""
    if trend.verdict == "leak":
        return f"+{rate_text(trend.per_second)}, {trend.reason}"
    return trend.reason if trend.risen or trend.verdict == "steady" else ""


def _finding(finding: Finding, style: Style) -> list[str]:
    title = textwrap.wrap(printable(finding.title), style.width - 2) or [""]
    label = style.paint(f"{finding.severity}: {finding.id}", _COLOURS[finding.severity])
    lines = [label, *("  " + style.paint(line, "bold") for line in title)]
    for name, texts in (
        ("evidence", evidence_lines(finding.evidence)),
        ("threshold", [finding.threshold if finding.severity != "note" else ""]),
        ("cause", [f"{finding.cause} ({finding.confidence})"]),
        ("ruled out", [_ruled_out(finding.ruled_out) if finding.severity != "note" else ""]),
        ("harmless", [finding.harmless]),
        ("remedy", [finding.remedy]),
    ):
        texts = [text for text in texts if text]
        for index, text in enumerate(texts):
            lines += _field(name if not index else "", text, style).splitlines()
    if finding.origins:
        lines += [style.paint("  opened by", "dim"), *origin_lines(finding.origins, style)]
    if finding.next:
        lines.append(_field("next", style.paint(finding.next, "cyan"), style, wrap=False))
    return lines


def _ruled_out(ruled_out: dict[str, object]) -> str:
    """All in one row, as one reads over it: `listeners 1 (0 new), TIME_WAIT 4`."""
    rows = []
    for name, figures in ruled_out_rows(ruled_out):
        held = figures.replace(" held, ", " (", 1).replace(" opened meanwhile", " new)", 1)
        rows.append(f"{name} {held}" if figures[:1].isdigit() else f"{name}: {held}")
    return ", ".join(rows)


def ruled_out_rows(ruled_out: dict[str, object]) -> list[tuple[str, str]]:
    """What else it could have been, each with its figures in words."""
    rows = []
    for name, value in ruled_out.items():
        figures = value.items() if isinstance(value, dict) else [("", value)]
        rows.append((printable(name), printable(", ".join(f"{_counted(n)} {what}".rstrip() for what, n in figures))))
    return rows


def recorded_lines(recorded: Recorded, style: Style, told: Sequence[Origin] = ()) -> list[str]:
    """Which lines opened what is open, by kind; then what has no line, and why. `told`: origins shown before."""
    since = f"recorded for {in_words(recorded.seconds)}" + (", attached" if recorded.mode == "attached" else "")
    counts = f"{grouped(recorded.opened)} opened, {grouped(recorded.closed)} closed"
    lines = [style.paint(f"Where they were opened ({since}: {counts})", "bold")]
    kinds: dict[str, list[Origin]] = {}
    for each in recorded.alive:
        kinds.setdefault(each.kind, []).append(each.origin)
    for kind, origins in kinds.items():
        shown = sum(origin.count for origin in origins if origin in told)
        origins = [origin for origin in origins if origin not in told]
        if shown:
            lines += ["", f"  {style.paint(kind, 'cyan')}  {grouped(shown)} as told above"]
        if not origins:
            continue
        lines += ["", f"  {style.paint(kind, 'cyan')}", *origin_lines(origins, style, most=_ORIGINS_OF_A_KIND)]
    rest = unrecorded_lines(recorded)
    wrapped = [line for text in rest for line in textwrap.wrap(text, style.width - 2, subsequent_indent="  ")]
    return [*lines, *([""] if wrapped else []), *(style.paint(f"  {line}", "dim") for line in wrapped)]


def unrecorded_lines(recorded: Recorded) -> list[str]:
    """What is open and has no line, by kind, and why."""
    rest = []
    for name, counted in (
        ("open before the recording began", recorded.older),
        ("inherited from the process that forked this one", recorded.inherited),
        ("origin unknown (opened outside libc)", recorded.outside),
    ):
        if counted:
            rest.append(f"{name}: " + ", ".join(f"{grouped(count)} {kind}" for kind, count in counted.items()))
    return rest + [f"not recorded: {why}" for why in recorded.incomplete]


def _field(name: str, text: str, style: Style, *, wrap: bool = True) -> str:
    head = f"  {name}".ljust(_MARGIN) + " "
    wrapped = textwrap.wrap(text, style.width - len(head)) if wrap else [text]
    pad = "\n" + " " * len(head)
    return style.paint(head.rstrip(), "dim") + head[len(head.rstrip()) :] + pad.join(wrapped or [""])


def evidence_lines(evidence: dict[str, object]) -> list[str]:
    """Evidence in words: a line for each thread, peer or stack; figures share a line."""
    lines: list[str] = []
    figures: list[str] = []
    for name, value in evidence.items():
        if name == "threads" and isinstance(value, list):
            lines += [_thread(thread) for thread in value if isinstance(thread, dict)]
        elif isinstance(value, dict):
            lines += [
                f"{name.replace('_', ' ')}: {_counted(count)} × {printable(str(what))}" for what, count in value.items()
            ]
        elif isinstance(value, list) and _is_stack(name):
            lines.append(f"{name.replace('_', ' ')}: {' ← '.join(printable(str(item)) for item in value)}")
        elif isinstance(value, list):
            lines += [f"{name.replace('_', ' ')}: {printable(str(item))}" for item in value]
        elif value is not None:
            figures.append(_figure(name, _counted(value)))
    return lines + ([", ".join(figures)] if figures else [])


def _is_stack(name: str) -> bool:
    """Frames, the innermost first: `closed by`, `opened by`, `stack of 4711`."""
    return name.endswith(" by") or name.startswith("stack of ")


def _counted(value: object) -> str:
    return grouped(value) if isinstance(value, int) else str(value)


def _figure(name: str, value: str) -> str:
    if name.startswith("seconds_to_"):
        return f"{name.removeprefix('seconds_to_').replace('_', ' ')} in {value} s"
    if name == "seconds":
        return f"over {value} s"
    if name.endswith("_seconds"):
        return f"{name.removesuffix('_seconds')} {value} s"
    return f"{name.replace('_', ' ')} {value}"


def _thread(thread: dict[str, object]) -> str:
    channel = str(thread["wait_channel"]).partition(".")[0]
    name = printable(str(thread["name"]))
    return (
        f"thread {thread['tid']} {name} sleeps in {channel} for {thread['blocked_seconds']} s (healthy: epoll), its"
        f" context switches stand at {thread['context_switches']} in {thread['samples']} looks"
    )
