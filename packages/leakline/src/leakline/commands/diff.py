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
from leakline.errors import UsageError
from leakline.facts import Snapshot
from leakline.reports import difference as report
from leakline.reports.style import style_of, write

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
    proc.snapshot(pid, threads=False, libraries=False)  # a process that cannot be read is told before anything is typed
    lines = Lines()
    _say(f"Process {pid}: {proc.command(pid)}")
    _say("Press Enter to begin.")
    lines.wait()
    rounds: list[Difference] = []
    for number in range(1, repeat + 1):
        looks = Looks(_look(pid))
        of = f" ({number} of {repeat})" if repeat > 1 else ""
        _say(f"Do the action{of}, then press Enter.")
        _look_until_enter(pid, looks, lines)
        rounds.append(looks.difference())
    left: tuple[Residue, ...] = residue(rounds) if repeat > 1 else ()
    style = style_of(sys.stdout)
    write(report.as_json(pid, rounds, left) if as_json else style.plain(report.render(rounds, left, style)))
    raise typer.Exit(int(bool(left)))


class Lines:
    """Lines of stdin, waited for without blocking what goes on meanwhile."""

    def __init__(self) -> None:
        self._buffer = b""

    def wait(self, timeout_s: float | None = None) -> bool:
        """True when a line was there within the time; raises UsageError at the end of the input."""
        if b"\n" not in self._buffer:
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


def _look(pid: int) -> Snapshot:
    return proc.snapshot(pid, threads=False, libraries=False)


def _look_until_enter(pid: int, looks: Looks, lines: Lines) -> None:
    pause = LOOK_EVERY_S
    while not lines.wait(pause):
        began = time.thread_time()
        looks.add(_look(pid))
        pause = max(LOOK_EVERY_S, (time.thread_time() - began) / CPU_SHARE)
    looks.add(_look(pid))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
