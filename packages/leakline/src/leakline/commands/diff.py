"""`leakline diff PID|NAME`: press Enter, do one action, press Enter: what did the action leave open?"""

from __future__ import annotations

import os
import select
import sys
import time
from typing import Annotated

import typer

from leakline import proc
from leakline.commands.arguments import AsJson, Target
from leakline.differences import Difference, Looks, Residue, residue
from leakline.errors import LeaklineError, NoSuchProcessError, UsageError, ZombieError
from leakline.facts import Snapshot, told
from leakline.recorder.recordings import openers
from leakline.reports import difference as report
from leakline.reports.style import printable, style_of, write

LOOK_EVERY_S = 0.02
CPU_SHARE = (
    0.3  # looking takes no more than this share of one core: a process with many descriptors is looked at less often
)


def diff(
    target: Target,
    repeat: Annotated[
        int,
        typer.Option(
            "--repeat", min=1, max=1000, metavar="N", help="Do the action N times; name what each one leaves."
        ),
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """What does one action open and leave open? Press Enter, do the action, press Enter.

    Between the two it looks many times a second, so that what is opened and closed meanwhile is seen too, unless it
    lives for less than the time between two looks. Exit code 1 if --repeat finds something that every repetition
    leaves open.

    \b
    leakline diff 1234
    leakline diff 1234 --repeat 5       (what comes each time is the leak)
    leakline diff 1234 --json
    """
    pid = proc.find(target)
    started = proc.started(pid)
    _look(pid, started)  # a process that cannot be read is told before anything is typed
    lines = Lines()
    _say(f"Process {pid}: {proc.command(pid)}")
    _say("Press Enter to begin.")
    lines.wait()
    rounds, ended = _rounds(pid, started, repeat, lines)
    left: tuple[Residue, ...] = residue(rounds) if len(rounds) > 1 else ()
    style = style_of(sys.stdout)
    if rounds:
        write(report.as_json(pid, rounds, left) if as_json else style.plain(report.render(rounds, left, style)))
    if ended is not None:
        raise ended
    raise typer.Exit(int(bool(left)))


def _rounds(pid: int, started: int, repeat: int, lines: Lines) -> tuple[list[Difference], LeaklineError | None]:
    """Each repetition; fewer, and an error, if the process ended in one, whose looks until then count too."""
    rounds: list[Difference] = []
    for number in range(1, repeat + 1):
        looks: Looks | None = None
        try:
            looks = Looks(_look(pid, started))
            of = f" ({number} of {repeat})" if repeat > 1 else ""
            _say(f"Do the action{of}, then press Enter.")
            _look_until_enter(pid, started, looks, lines)
        except (NoSuchProcessError, ZombieError):
            if looks is not None:
                rounds.append(looks.difference())
            return rounds, NoSuchProcessError(
                f"process {pid} ended during action {number} of {repeat}", "what it left open until then is on stdout"
            )
        rounds.append(looks.difference({number: told(frame) for number, frame in openers(_look(pid, started)).items()}))
    return rounds, None


class Lines:
    """Lines of stdin, waited for without blocking what goes on meanwhile."""

    def __init__(self) -> None:
        self._buffer = b""

    def wait(self, timeout_s: float | None = None) -> bool:
        """True when a line was there within the time; raises UsageError at the end of the input."""
        if b"\n" not in self._buffer:
            if sys.stdin is None:
                raise UsageError("stdin is closed: Enter cannot be pressed", "run `leakline diff` at a terminal")
            readable, _, _ = select.select([sys.stdin], [], [], timeout_s)
            if not readable:
                return False
            data = os.read(sys.stdin.fileno(), 4096)
            if not data:
                raise UsageError("stdin ended before Enter was pressed", "run `leakline diff` at a terminal")
            self._buffer += data
        if b"\n" not in self._buffer:
            return False
        _, _, self._buffer = self._buffer.partition(b"\n")
        return True


def _look(pid: int, started: int) -> Snapshot:
    return proc.snapshot(pid, threads=False, libraries=False, started=started)


def _look_until_enter(pid: int, started: int, looks: Looks, lines: Lines) -> None:
    pause = LOOK_EVERY_S
    while not lines.wait(pause):
        began = time.thread_time()
        looks.add(_look(pid, started))
        pause = max(LOOK_EVERY_S, (time.thread_time() - began) / CPU_SHARE)
    looks.add(_look(pid, started))


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(printable(text), file=sys.stderr, flush=True)
