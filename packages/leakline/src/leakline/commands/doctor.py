"""`leakline PID|NAME`: observe a process for a while, then say what is wrong with it."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from typing import Annotated

import typer

from leakline.commands.arguments import AsJson, Html, Limit, Target, process_of
from leakline.commands.files import check_folder, write_page
from leakline.durations import in_words, seconds_of
from leakline.errors import LeaklineError
from leakline.facts import Sample
from leakline.observe import Observation, looks
from leakline.own_process.remote import check_can_ask, holders_in
from leakline.reports import json_report, terminal
from leakline.reports.style import grouped, style_of, write


def doctor(
    target: Target,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long to observe: 500ms, 10s, 2m, 1h.")
    ] = "10s",
    limit: Limit = None,
    as_json: AsJson = False,
    html: Html = None,
    objects: Annotated[
        bool,
        typer.Option("--objects", help="Also ask a Python process (the same Python, 3.14+) what keeps what leaks."),
    ] = False,
) -> None:
    """Observe a process and report: verdict, counts by kind, growth, findings with cause and remedy.

    Ctrl-C ends the observation early and reports what was seen by then.

    \b
    leakline 1234
    leakline gunicorn --for 1m
    leakline 1234 --limit 1024          (an application's own ceiling, such as select's 1024)
    leakline 1234 --json | jq .verdict
    leakline 1234 --html report.html    (a page with charts: opens offline, also on a phone)
    leakline 1234 --objects             (lets Python 3.14+ run a script of ours for 10 to 100 ms)
    """
    check_folder(html)
    seconds = seconds_of(duration)
    pid = process_of(target)
    if objects:
        check_can_ask(pid)
    observation = Observation(pid, limit=limit, window=seconds + 1.0)
    progress = Progress(seconds)
    try:
        for sample in looks(observation, seconds):
            progress.show(observation, sample)
    except KeyboardInterrupt:
        pass
    finally:
        progress.clear()
    unasked = _ask(observation) if objects else ""
    report = observation.report(refresh=not objects)
    write(json_report.render(report) if as_json else terminal.render(report, style_of(sys.stdout), datetime.now()))
    if unasked:
        print(f"leakline: {unasked}", file=sys.stderr)
    write_page(html, report)
    raise typer.Exit(report.exit_code)


def _ask(observation: Observation) -> str:
    """Adds what keeps what was opened meanwhile. Why not, where it cannot: the report is the same but for that."""
    observation.refresh()
    numbers = observation.opened()
    if numbers and not observation.ended:
        try:
            observation.tell_python(holders_in(observation.pid, numbers))
        except LeaklineError as error:
            return str(error)
    return ""


class Progress:
    """One line on stderr that says how far the observation is; nothing where stderr is no terminal."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._shown = -1
        self._began: float | None = None
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    def show(self, observation: Observation, sample: Sample) -> None:
        """Called after each look; rewrites the line four times a second."""
        if not self._terminal:
            return
        self._began = sample.at if self._began is None else self._began
        elapsed = sample.at - self._began
        if int(elapsed * 4) == self._shown:
            return
        self._shown = int(elapsed * 4)
        seen = f"{elapsed:.0f} of {in_words(self._seconds)}, {grouped(sample.total)} descriptors"
        line = f"observing {observation.pid}: {seen}"
        # A line that fills the terminal would wrap, and "\r" would no longer come back to its beginning.
        sys.stderr.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\033[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._terminal and self._shown >= 0:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
