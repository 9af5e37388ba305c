"""Plays one look: starts what is to run beside, the program, then leakline on it, and ends all of it by pid.

Each step has a deadline, and the programs end by themselves after some minutes, should the runner be killed.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
from casebook.runner.expectation import Case, Look, place_of
from casebook.runner.judging import Judgement, judge, others
from casebook.runner.older_libzmq import folder_of
from casebook.runner.programs import LEAKLINE, command, environment

from datacenter.testing import NotReadyError, Process

READY_S = 40.0
AFTERWARDS_S = 60.0  # for leakline to report, beyond the time that it looks
END_S = 10.0
POLL_S = 0.02


class Result(msgspec.Struct, frozen=True):
    """What one look gave. `seconds`: from the program's "ready" to leakline's report. `on_fixed`: findings that must
    not be. `trouble`: why it could not be played, or what a program did not say.
    """

    case: Case
    look: Look
    judgement: Judgement | None
    seconds: float
    on_fixed: tuple[str, ...] | None  # None: not looked at
    trouble: str = ""

    @property
    def right(self) -> bool:
        return not self.trouble and self.judgement is not None and self.judgement.right and not self.on_fixed


def play(case: Case, look: Look) -> Result:
    """The broken program, then the fixed one. Never raises for what a program or leakline does."""
    judgement, seconds = None, 0.0
    on_fixed: tuple[str, ...] | None = None
    try:
        report, seconds = looked_at(case, look, look.program, look.says)
        judgement = judge(look, place_of(case, look), json.loads(report))
        report, _ = looked_at(case, look, look.fixed, look.fixed_says)
        on_fixed = tuple(others(json.loads(report)))
    except Exception as error:  # whatever it is, it is told in the table, and the other cases are played
        return Result(case, look, judgement, seconds, on_fixed, f"{type(error).__name__}: {error}")
    return Result(case, look, judgement, seconds, on_fixed)


def looked_at(case: Case, look: Look, program: str, says: str = "", *, as_json: bool = True) -> tuple[str, float]:
    """What leakline said of one program (JSON, or the text that a user reads), and after how many seconds.

    Raises NotReadyError with what a process said instead, BuildError, OSError.
    """
    with tempfile.TemporaryDirectory(prefix="casebook-", ignore_cleanup_errors=True) as name, ExitStack() as ends:
        scene = Scene(case, look, Path(name), ends)
        words = [*command(case, look, program), *look.arguments]
        words += [word for server in look.beside for word in scene.beside(server)]
        form = ["--json"] if as_json else []
        if look.how == "ended":
            return scene.until_the_end(words, form, says)
        return scene.while_it_runs(words, form, says)


class Scene:
    """What one look at one program starts. Whatever is left is ended by `ends`."""

    def __init__(self, case: Case, look: Look, folder: Path, ends: ExitStack) -> None:
        self._case = case
        self._look = look
        self._folder = folder
        self._ends = ends
        self._environment = environment(look, folder)
        if look.libzmq:
            self._environment["LD_LIBRARY_PATH"] = str(folder_of(look.libzmq))

    def beside(self, program: str) -> list[str]:
        """Starts a server of the case; what it says after "ready", by words."""
        _, found = self._start(command(self._case, self._look, program)).wait_line(r"^ready ?(.*)$", READY_S)
        return found[1].split()

    def while_it_runs(self, words: list[str], form: list[str], says: str) -> tuple[str, float]:
        """leakline looks at the running program, or attaches to it."""
        launched = self._look.how == "launched"
        recorder = [*LEAKLINE, "run", "--quiet", "--output", str(self._folder / "afterwards"), "--"] if launched else []
        program = self._start([*recorder, *words])
        began, found = program.wait_line(self._look.ready, READY_S)
        pid = int(found[1]) if found.re.groups and found[1] else self._pid(program)
        self._ends.callback(_kill, pid)
        verb = ["attach"] if self._look.how == "attached" else []
        doctor = self._start([*LEAKLINE, *verb, str(pid), "--for", f"{self._look.seconds:g}s", *form])
        report = self._said(doctor)
        seconds = time.monotonic() - began
        if says:
            _wait_said(program, says)
        return report, seconds

    def until_the_end(self, words: list[str], form: list[str], says: str) -> tuple[str, float]:
        """leakline reports when the program has ended by itself."""
        output = self._folder / "report"
        began = time.monotonic()
        program = self._start([*LEAKLINE, "run", *form, "--output", str(output), "--", *words])
        program.wait(READY_S + self._look.seconds)
        if says:
            _wait_said(program, says)
        return output.read_text(encoding="utf-8"), time.monotonic() - began

    def _start(self, words: list[str]) -> Process:
        process = Process(words, cwd=self._case.folder, environment=self._environment)
        self._ends.callback(process.release)
        return process

    def _pid(self, program: Process) -> int:
        """Of the program itself, which is a child of `leakline run` where it was launched."""
        if self._look.how != "launched":
            return program.pid
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        return int(children[0])

    def _said(self, doctor: Process) -> str:
        status = doctor.wait(self._look.seconds + AFTERWARDS_S)
        if status not in (0, 1):
            raise NotReadyError(f"leakline ended with {status}: {doctor.errors}")
        return doctor.output()


def _wait_said(program: Process, says: str) -> None:
    """The program's own complaint, on either stream, as it was seen first."""
    end = time.monotonic() + END_S
    while says not in (said := "\n".join([*(line for _, line in program.lines), program.errors])):
        if time.monotonic() > end:
            raise NotReadyError(f"{program!r} did not say {says!r} but:\n{said[-2000:]}")
        time.sleep(POLL_S)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
