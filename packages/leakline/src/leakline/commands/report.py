"""`leakline report FILE`: what a recording says, of a process that runs or that is long gone."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from leakline import proc
from leakline.commands.arguments import AsJson, Html
from leakline.commands.files import check_folder, write_page
from leakline.errors import LeaklineError, UsageError
from leakline.facts import Snapshot
from leakline.observe import report_of
from leakline.recorder.process_identity import start_time_ticks
from leakline.recorder.recorded import recorded
from leakline.recorder.recording import Recording
from leakline.recorder.recording_file import read_recording
from leakline.recorder.recording_place import recordings_folder
from leakline.reports import json_report, terminal
from leakline.reports.style import style_of, write


def report(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A recording; without it, those that there are, are listed.")
    ] = None,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Report a recording again: also after the process was killed, with its last state.

    `leakline run --recording FILE` keeps one; without --recording it is kept where the command was ended by a signal.

    \b
    leakline report                                 (which ones are there)
    leakline report server.leakline
    leakline report server.leakline --json | jq '.recording.alive[0].origin.frames[0]'
    leakline report server.leakline --html server.html
    """
    check_folder(html)
    if file is None:
        raise typer.Exit(_list())
    try:
        recording = read_recording(file)
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}", "`leakline report` lists the recordings that there are"
        ) from error
    told = report_of(recorded(recording, _snapshot(recording)), recording.pid, recording.command)
    write(json_report.render(told) if as_json else terminal.render(told, style_of(sys.stdout), datetime.now()))
    write_page(html, told)
    raise typer.Exit(told.exit_code)


def _snapshot(recording: Recording) -> Snapshot | None:
    """The process's descriptors now, if it still runs."""
    if not recording.live or start_time_ticks(recording.pid) != recording.start_time_ticks:
        return None
    try:
        return proc.snapshot(recording.pid, threads=False, libraries=False)
    except LeaklineError:
        return None


def _list() -> int:
    folder = recordings_folder()
    files = sorted(folder.glob("*.leakline"), key=lambda each: -each.stat().st_mtime)
    if not files:
        print(f"leakline: no recordings in {folder}; `leakline run --recording FILE -- CMD` keeps one", file=sys.stderr)
    for each in files:
        try:
            recording = read_recording(each)
        except (LeaklineError, OSError):
            continue
        state = "runs" if start_time_ticks(recording.pid) == recording.start_time_ticks else "ended"
        write(f"{each}  {recording.pid} {state}  {len(recording.slots)} open  {recording.command}")
    return 0
