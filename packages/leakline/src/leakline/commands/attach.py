"""`leakline attach PID|NAME`: load the recorder into a running process for a while, and take it out again."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakline import proc
from leakline.commands.arguments import AsJson, Html, Target
from leakline.commands.doctor import Progress
from leakline.commands.files import check_folder, write_page
from leakline.commands.interrupts import ended_as_by_interrupt
from leakline.durations import in_words, seconds_of
from leakline.errors import LeaklineError
from leakline.figures import printable
from leakline.observe import Observation, Report, looks
from leakline.recorder.recordings import Recordings
from leakline.reports import json_report, terminal
from leakline.reports.style import style_of, write

if TYPE_CHECKING:
    from leakline.recorder.attach import Attached


def attach(
    target: Target,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long to record: 500ms, 10s, 2m, 1h.")
    ] = "30s",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the report there instead of stdout.")
    ] = None,
    as_json: AsJson = False,
    html: Html = None,
    threshold: Annotated[
        int | None,
        typer.Option("--threshold", min=1, metavar="N", help="End as soon as more than N descriptors are open."),
    ] = None,
) -> None:
    """Record a running process for a while, then leave it as it was.

    One of its threads stands still for some milliseconds at the beginning and at the end, while it waits anyway; all
    of them for a tenth of a second, and by gdb, if none ever waits. Ends
    early at Ctrl-C, at the first EMFILE or ENFILE, beyond --threshold, and with the process. What was open before has
    no line: it is counted by kind. A process that was launched under the recorder is only read.

    \b
    leakline attach 1234
    leakline attach gunicorn --for 2m
    leakline attach 1234 --json --output fds.json
    leakline attach 1234 --for 1h --threshold 500
    """
    from leakline.recorder import attach as recorder  # takes what only this command needs

    seconds = seconds_of(duration)
    check_folder(output)
    check_folder(html)
    pid = proc.find(target)
    with ended_as_by_interrupt(), recorder.attach(pid) as attached:
        report, why = _observe(attached, seconds, threshold)
    text = json_report.render(report) if as_json else terminal.render(report, style_of(sys.stdout), datetime.now(), why)
    if output is None:
        write(text)
    else:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            write(text)
            raise LeaklineError(
                f"{output} could not be written: {error.strerror}", "the report is on stdout"
            ) from error
    write_page(html, report, why)
    raise typer.Exit(report.exit_code)


def _say(attached: Attached) -> None:
    if sys.stderr is None:
        return
    if attached.launched:
        text = f"process {attached.pid} was launched under the recorder: reading what it has recorded"
    elif attached.found:
        text = f"process {attached.pid} is being recorded since an earlier attachment: reading that, then ending it"
    elif attached.by == "python":
        text = (
            f"attached to process {attached.pid} by its own Python (sys.remote_exec), which ran no other code for"
            f" {attached.held_s * 1000:.1f} ms"
        )
    elif attached.by == "gdb":
        text = (
            f"attached to process {attached.pid} by gdb, as no thread of it waits; all its threads stood still for"
            f" {attached.held_s * 1000:.0f} ms"
        )
    else:
        text = f"attached to process {attached.pid}; one thread stood still for {attached.held_s * 1000:.1f} ms"
    print(printable(text), file=sys.stderr, flush=True)


def _observe(attached: Attached, seconds: float, threshold: int | None) -> tuple[Report, str]:
    """The report, and why it came before the time was over."""
    pid, recording = attached.pid, attached.readable
    observation = Observation(pid, window=seconds + 1.0, recording=recording)
    recordings = Recordings(pid, recording)
    refused = recordings.exhausted()
    progress, why = Progress(seconds), ""
    try:
        _say(attached)
        for sample in looks(observation, seconds):
            progress.show(observation, sample)
            if threshold is not None and sample.total > threshold:
                why = f"{sample.total} descriptors are open, more than {threshold}"
            elif recordings.exhausted() > refused:
                why = "a descriptor was refused"
            if why:
                break
        else:
            why = f"the process ended before {in_words(seconds)} were over" if observation.ended else ""
    except KeyboardInterrupt:
        why = "interrupted"
    finally:
        progress.clear()
    return observation.report(), why
