"""The end of the play in words: leakline's reports as it would print them, and the demo's own figures beside them."""

from __future__ import annotations

import textwrap
from datetime import datetime

from datacenter.demo.outcome import Attached, Naive, Ours, Outcome, told
from leakline.reports.origins import origin_lines
from leakline.reports.style import Style, grouped
from leakline.reports.terminal import render

_MARGIN = 14  # as in leakline's report


def conclusion(outcome: Outcome, style: Style, now: datetime) -> str:
    """All of it, without a line end. `now`: local time, for leakline's reports."""
    parts = []
    if outcome.naive is not None:
        parts.append(_naive(outcome.naive, style, now))
    if outcome.attached is not None:
        parts.append(_attached(outcome.attached, style))
    parts += [_ours(process, style, now) for process in outcome.ours]
    parts.append(_result(outcome, style))
    return "\n\n".join(parts)


def _naive(naive: Naive, style: Style, now: datetime) -> str:
    lines = [_title(f"The naive client (pid {naive.pid}), plain pyzmq", style)]
    if naive.report is not None:
        lines += ["", render(naive.report, style, now)]
    lines += ["", _field("foretold", _foretold(naive), style)]
    if naive.closed_per_second is not None:
        rate = (
            f"{naive.closed_per_second:.1f} sockets closed per second by its own count,"
            f" {naive.eventfds_per_second:.1f} eventfds per second by leakline's: {_percent(naive.rate_off)} apart"
        )
        lines.append(_field("rate", rate, style))
    if naive.last_words:
        lines.append(_field("last words", naive.last_words, style))
    return "\n".join(lines)


def _attached(attached: Attached, style: Style) -> str:
    title = f"A second one (pid {attached.pid}), launched without the recorder: leakline attach {attached.pid}"
    lines = [_title(title, style), "", _field("said", attached.said, style)]
    if attached.origin is not None:
        lines += ["", *origin_lines([attached.origin], style)]
    return "\n".join(lines)


def _foretold(naive: Naive) -> str:
    if naive.forecast is None:
        return "nothing"
    said = f"at {naive.forecast.made_at:.1f} s: no descriptor left in {naive.forecast.left_s:.1f} s"
    if naive.lived_s is None:
        return f"{said}; it did not die in time"
    return f"{said}; it died after {naive.lived_s:.1f} s: {_percent(naive.forecast_off)} off"


def _ours(ours: Ours, style: Style, now: datetime) -> str:
    lines = [_title(f"Our {ours.name} (pid {ours.pid})", style)]
    if ours.report is not None:
        lines += ["", render(ours.report, style, now)]
    lines += ["", _field("before", told(ours.before), style), _field("after", told(ours.after), style)]
    if ours.answered is not None:
        away = f"; {grouped(ours.failed)} ended by their deadline while the service was away" if ours.failed else ""
        lines.append(_field("answered", f"{grouped(ours.answered)} calls{away}", style))
    lines.append(_field("ledger", _ledger(ours), style))
    return "\n".join(lines)


def _ledger(ours: Ours) -> str:
    ledger = ours.ledger
    if ledger is None:
        return "could not be read"
    if ledger.equal:
        streams = len(ledger.others)
        return f"== /proc: all {ledger.owned} descriptors but the {streams} standard streams are in it, and no other"
    return "!= /proc: " + ("; ".join(ledger.differences) or "it does not see all that libzmq opens")


def _result(outcome: Outcome, style: Style) -> str:
    first = f"{outcome.outages} outages in {outcome.seconds:.0f} s, the first of {outcome.first_outage_s:.0f} s."
    differs = outcome.differs()
    if not differs:
        text = f"{first} Ours held every descriptor; the naive client was diagnosed, and died as foretold."
        return "\n".join(style.paint(style.plain(line), "green") for line in textwrap.wrap(text, style.width))
    lines = [style.paint(f"{first} Not as it must be:", "red")]
    for each in differs:
        lines += textwrap.wrap(style.plain(each), style.width, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join(lines)


def _title(text: str, style: Style) -> str:
    return f"{style.paint(text, 'bold')}\n{style.plain(('─' if style.unicode else '-') * min(style.width, len(text)))}"


def _field(name: str, text: str, style: Style) -> str:
    wrapped = textwrap.wrap(style.plain(text), style.width - _MARGIN) or [""]
    head = f"  {name}".ljust(_MARGIN)
    return style.paint(head, "dim") + ("\n" + " " * _MARGIN).join(wrapped)


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.0f} %"
