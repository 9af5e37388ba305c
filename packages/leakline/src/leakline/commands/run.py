"""`leakline run -- CMD …`: launch a command with the recorder in it, and say which lines hold its descriptors."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from leakline.commands.arguments import AsJson, Html
from leakline.commands.files import check_folder, write_file, write_page
from leakline.errors import LeaklineError, UsageError
from leakline.figures import printable
from leakline.observe import STEP_S, Observation, Report, report_of
from leakline.recorder.launch import Launched, launch, tidy
from leakline.recorder.preloadable import why_unrecorded
from leakline.recorder.recording_place import recordings_folder
from leakline.recorder.recordings import Recordings
from leakline.reports import json_report, terminal
from leakline.reports.style import style_of

EXHAUSTED_EVERY_S = 0.25
AFTER_INTERRUPT_S = 2.0
DEFAULT_LEAK_STATUS = 1
NOTHING_RECORDED = 3
_BARE_FAIL = "--fail-on-leak"


class RunCommand(TyperCommand):
    """Everything behind the first word that is no option is the command's; `--fail-on-leak` may be without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for bare, word in pairwise(args[:end]):
            if bare == _BARE_FAIL and word.isdecimal():
                raise UsageError(f"{_BARE_FAIL} {word}: a code belongs to it", f"write {_BARE_FAIL}={word}")
        args = [f"{_BARE_FAIL}={DEFAULT_LEAK_STATUS}" if i < end and w == _BARE_FAIL else w for i, w in enumerate(args)]
        return super().parse_args(ctx, args)


SETTINGS = {"cls": RunCommand, "context_settings": {"allow_interspersed_args": False}}


def run(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- CMD ...", help="The program and its arguments.")
    ] = None,
    follow_children: Annotated[
        bool,
        typer.Option("--follow-children", help="Record the processes that it starts, too: each for itself."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the report there; else it goes to stderr.")
    ] = None,
    as_json: AsJson = False,
    html: Html = None,
    threshold: Annotated[
        int | None,
        typer.Option("--threshold", min=1, metavar="N", help="Report as soon as more than N descriptors are open."),
    ] = None,
    fail_on_leak: Annotated[
        int | None,
        typer.Option(
            _BARE_FAIL,
            min=1,
            max=255,
            metavar="[=CODE]",
            help="End with CODE (1) if a leak was found.",
        ),
    ] = None,
    recording: Annotated[
        Path | None,
        typer.Option(
            "--recording",
            metavar="FILE",
            help="Keep the recording there, for `leakline report FILE`; those of its children in FILE.PID-START.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No report unless a leak or a warning was found.")] = False,
) -> None:
    """Launch a command with the recorder in it: no root, nothing rebuilt, its streams and its exit status its own.

    At its end, at the first EMFILE or ENFILE, or beyond --threshold: what is open, by the line that opened it, most
    first, with what that line opened and closed. Meanwhile `leakline PID`, `ls`, `watch` and `diff` in another
    terminal name the lines, too.

    \b
    leakline run -- ./server --port 8080
    leakline run --fail-on-leak -- pytest -q          (for CI: status 1 if something leaks)
    leakline run --json --output fds.json -- ./batch
    leakline run --threshold 500 -- python service.py
    leakline run --html report.html -- ./server       (a page with charts; opens offline)
    """
    if as_json and output is None:
        raise UsageError("--json needs a file: stdout is the command's", "add --output FILE")
    check_folder(html)
    check_folder(output)
    folder = recordings_folder()
    tidy(folder)
    _check_new(recording)
    launched = launch(command or (), recording=recording, follow_children=follow_children)
    with _interrupts_left_to(launched.pid) as interrupts:
        session = Session(
            launched, " ".join(command or ()), threshold, lambda report, why: _tell(report, why, output, as_json, html)
        )
        report, status = session.watch(interrupts)
    found = report.exit_code != 0
    if report.recorded is None:
        why = why_unrecorded((command or ["it"])[0], launched.recording.absolute().parent)
        print(f"leakline: {printable(why)}", file=sys.stderr, flush=True)
    if found or not quiet:
        _tell(report, "", output, as_json, html)
    kept = recording is not None or status < 0
    if not kept:
        with suppress(OSError):
            launched.recording.unlink()
    raise typer.Exit(_exit_code(report, status, fail_on_leak, wanted=fail_on_leak is not None or recording is not None))


def _exit_code(report: Report, status: int, fail_on_leak: int | None, *, wanted: bool) -> int:
    """The command's own; a signal's number as a shell tells it. `wanted`: somebody relies on the recording."""
    if fail_on_leak is not None and any(finding.severity == "leak" for finding in report.findings):
        return fail_on_leak
    if report.recorded is None and status == 0 and wanted:
        return NOTHING_RECORDED
    return status if status >= 0 else 128 - status


def _check_new(recording: Path | None) -> None:
    if recording is None:
        return
    if recording.exists():
        raise UsageError(f"{recording} exists already", "name a new file, or remove it first")
    if not recording.absolute().parent.is_dir():
        raise UsageError(f"{recording.absolute().parent} is no folder", "make it first, or name another place")


class Session:
    """The command while it runs. `tell(report, why)` is called for what cannot wait until its end."""

    def __init__(
        self, launched: Launched, command: str, threshold: int | None, tell: Callable[[Report, str], None]
    ) -> None:
        self._launched = launched
        self._command = command
        self._threshold = threshold
        self._recordings = Recordings(launched.pid, launched.recording)
        self._tell = tell
        self._began = time.monotonic()
        self._status: int | None = None
        self._exhausted_told = self._threshold_told = self._interrupt_told = False
        self._exhausted_looked = 0.0

    def watch(self, interrupts: list[float]) -> tuple[Report, int]:
        """Wait for the end. What was seen, and the status as `subprocess` gives it (negative: a signal)."""
        observation = self._observation()
        while not self._ended():
            sample = None if observation is None else observation.step()
            if observation is not None and not observation.ended:
                self._look(observation, 0 if sample is None else sample.total, interrupts)
            self._wait(STEP_S)
        status = self._status if self._status is not None else 0
        if observation is None:
            recorded = Recordings(self._launched.pid, self._launched.recording).look(None)
            return report_of(recorded, self._launched.pid, self._command), status
        observation.step()  # finds it gone
        return observation.report(refresh=False), status

    def _observation(self) -> Observation | None:
        """None for a command that has ended already, or that may not be looked at."""
        window = 3600.0
        with suppress(LeaklineError):
            return Observation(self._launched.pid, window=window, recording=self._launched.recording)
        return None

    def _look(self, observation: Observation, total: int, interrupts: list[float]) -> None:
        now = time.monotonic()
        if self._threshold is not None and total > self._threshold and not self._threshold_told:
            self._threshold_told = True
            self._tell(observation.report(), f"{total} descriptors are open, more than {self._threshold}")
        if now - self._exhausted_looked > EXHAUSTED_EVERY_S and not self._exhausted_told:
            self._exhausted_looked = now
            if self._recordings.exhausted():
                self._exhausted_told = True
                self._tell(observation.report(), "a descriptor was refused for the first time")
        if interrupts and now - interrupts[-1] > AFTER_INTERRUPT_S and not self._interrupt_told:
            self._interrupt_told = True
            self._tell(observation.report(), "interrupted; the command goes on")

    def _ended(self) -> bool:
        if self._status is None:
            # WNOWAIT leaves the zombie: what /proc still tells of it can be read.
            found = os.waitid(os.P_PID, self._launched.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return False
            _, status = os.waitpid(self._launched.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return True

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._ended() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.01))


@contextmanager
def _interrupts_left_to(pid: int) -> Iterator[list[float]]:
    """Ctrl-C goes to the whole foreground group: the command decides what it means. SIGTERM and SIGHUP are passed on.

    Gives the moments of interrupts.
    """
    moments: list[float] = []

    def pass_on(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: moments.append(time.monotonic())),
        signal.SIGQUIT: signal.signal(signal.SIGQUIT, signal.SIG_IGN),
        **{number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)},
    }
    try:
        yield moments
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(report: Report, why: str, output: Path | None, as_json: bool, html: Path | None) -> None:
    try:
        write_page(html, report, why)
    except LeaklineError as error:  # the command goes on
        print(f"leakline: {error}", file=sys.stderr)
    text = json_report.render(report) if as_json else terminal.render(report, style_of(sys.stderr), datetime.now(), why)
    if output is None:
        print(text, file=sys.stderr, flush=True)
        return
    try:
        write_file(output, text + "\n")
    except OSError as error:
        print(f"leakline: {output} could not be written: {error.strerror}; the report:\n{text}", file=sys.stderr)
