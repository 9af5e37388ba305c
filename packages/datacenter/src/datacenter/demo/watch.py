"""The demo's eyes: each process as leakline sees it from outside, with the figures that the process reports itself."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from datacenter.demo.outcome import BLOCKED, Forecast
from datacenter.testing import Process
from leakline.errors import LeaklineError
from leakline.observe import Observation, Report

REPORT_EVERY_S = 0.5  # a judgement costs some milliseconds
WHOLE_PLAY_S = 120.0
SLOPE_S = 12.0  # over which a process's own count is turned into a rate


@dataclass(frozen=True)
class Count:
    """One figure that a process reported of itself, on its own clock (seconds)."""

    at: float
    value: int


class Watched:
    """One process of the demo: leakline's observation of it, and its own figures.

    `step()` 20 times a second; `report` is leakline's last one, `ended_at` (monotonic seconds) when it was seen to have
    ended. Not thread-safe. `recording`: where the process is recorded, if it was launched under `leakline run`; then
    it is the child of `process`.
    """

    def __init__(
        self, name: str, process: Process, window_s: float = WHOLE_PLAY_S, recording: Path | None = None
    ) -> None:
        self.name = name
        self.process = process
        self.recording = recording
        self.figures: dict[str, float] = {}
        self.ended_at: float | None = None
        self.report: Report | None = None
        self._window_s = window_s
        self._heard = 0
        self._closed: deque[Count] = deque()
        self._reported = -float("inf")
        self._observation: Observation | None = None
        self._child: int | None = None

    @property
    def pid(self) -> int:
        """Of the process itself, not of the leakline that launched it."""
        if self.recording is None:
            return self.process.pid
        if self._child is None:
            self._child = _only_child(self.process.pid)
        return self._child or self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        if self.ended_at is None and not self._runs():
            self.ended_at = time.monotonic()
        return self.ended_at is None

    def _runs(self) -> bool:
        # leakline outlives what it launched by the time that it takes to write its report.
        return self.process.running and (self._child is None or Path(f"/proc/{self._child}").exists())

    @property
    def ready(self) -> bool:
        """Whether it has said something: each process of the demo does so when it has started."""
        return self._heard > 0

    def step(self) -> None:
        """Look at the process once, and read what it says."""
        self._listen()
        if not self.ready or not self.alive:
            return
        if self._observation is None:
            self._observation = _observation(self.pid, self._window_s, self.recording)
            return
        self._observation.step()
        now = time.monotonic()
        if now - self._reported >= REPORT_EVERY_S and not self._observation.ended:
            self._reported = now
            report = self._observation.report()
            if not self._observation.ended:  # of a process that died, the last report of its life says the most
                self.report = report

    def counts(self) -> dict[str, int]:
        """Descriptors by kind, by now, in order of their names."""
        if self._observation is None or self._observation.ended:
            return {}
        return dict(sorted(self._observation.counts().items()))

    def final_report(self) -> Report | None:
        """leakline's report over all that was seen; of a process that has ended, the last of its life."""
        if self._observation is not None and self.alive:
            self.report = self._observation.report()
        return self.report

    def closed_per_second(self) -> float | None:
        """Sockets that the process says to have closed, per second of its own clock; None if too little is known."""
        if len(self._closed) < 2:
            return None
        first, last = self._closed[0], self._closed[-1]
        return (last.value - first.value) / (last.at - first.at) if last.at > first.at else None

    def _listen(self) -> None:
        for _, line in self.process.lines[self._heard :]:
            self._heard += 1
            if not line.startswith("{"):
                continue
            self.figures = json.loads(line)
            if "closed" in self.figures:
                self._closed.append(Count(self.figures["t"], int(self.figures["closed"])))
                while self._closed[-1].at - self._closed[0].at > SLOPE_S:
                    self._closed.popleft()


def forecast(report: Report | None, made_at: float) -> Forecast | None:
    """When the process will have no descriptor left, once leakline is sure that it leaks and why; else None."""
    if report is None or report.verdict != "leak" or report.seconds_to_limit is None:
        return None
    if not any(finding.id == BLOCKED and finding.severity == "leak" for finding in report.findings):
        return None
    return Forecast(made_at, report.seconds_to_limit, report.total, report.limit or 0)


def _only_child(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if len(children) == 1 else None


def _observation(pid: int, window_s: float, recording: Path | None) -> Observation | None:
    try:
        return Observation(pid, window=window_s, recording=recording)
    except LeaklineError:  # it has ended already: its Child says so
        return None
