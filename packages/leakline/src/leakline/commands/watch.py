"""`leakline watch PID|NAME`: the same judgement as the doctor's, live, until the process ends or Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import typer

from leakline.commands.arguments import AsJson, Limit, Target, process_of
from leakline.durations import seconds_of
from leakline.observe import Observation, Report, looks
from leakline.reports import json_report, live, terminal
from leakline.reports.style import Style, style_of, write

REFRESH_EVERY_S = 5.0  # sockets and limits; the counts are looked at 20 times a second


def watch(
    target: Target,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="End after this long; else with the process.")
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="DURATION", help="How often a line is printed when piped, or with --json.")
    ] = "1s",
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Watch a process live: counts and a chart per kind, blocked ZeroMQ threads, the verdict. Ctrl-C ends it.

    Piped, it prints a line a second; with --json an object a second. The judgement is over the last 30 seconds.

    \b
    leakline watch 1234
    leakline watch 1234 --for 10m --every 1m >> descriptors.log
    leakline watch 1234 --json | jq --unbuffered .verdict
    """
    seconds = None if duration is None else seconds_of(duration)
    period = seconds_of(every)
    observation = Observation(process_of(target), limit=limit)
    style = style_of(sys.stdout)
    try:
        if sys.stdout.isatty() and not as_json:
            _live(observation, seconds, style)
        else:
            _lines(observation, seconds, period, json_report.render if as_json else live.line)
    except KeyboardInterrupt:
        pass
    report = observation.report()
    if not as_json:
        lines = terminal.verdict_lines(report, style, datetime.now())
        for finding in report.findings:
            lines += live.finding_lines(finding, style)
        write("\n".join(style.plain(line) for line in lines))
    raise typer.Exit(report.exit_code)


def _lines(observation: Observation, seconds: float | None, period: float, show: Callable[[Report], str]) -> None:
    due = time.monotonic() + period
    for sample in looks(observation, seconds):
        if sample.at >= due:
            due += period
            write(show(observation.report()))


def _live(observation: Observation, seconds: float | None, style: Style) -> None:
    from rich.console import Console  # takes a tenth of a second to import: only where it is shown
    from rich.live import Live
    from rich.text import Text

    def frame(report: Report) -> Text:
        text = live.screen(report, observation.samples(), observation.threads(), style, datetime.now())
        return Text.from_ansi(text, no_wrap=True, overflow="ellipsis")

    console = Console(no_color=not style.colours)
    refreshed = shown = time.monotonic()
    with Live(frame(observation.report(refresh=False)), console=console, auto_refresh=False, transient=True) as display:
        for sample in looks(observation, seconds):
            if sample.at - shown < 0.25:
                continue
            shown = sample.at
            due = shown - refreshed >= REFRESH_EVERY_S
            refreshed = shown if due else refreshed
            display.update(frame(observation.report(refresh=due)), refresh=True)
