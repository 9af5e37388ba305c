"""The story of the demo, from the start of the broker to the verdicts.

1. Broker, service and our client start and come to rest: their descriptors are counted. Then the naive client starts.
2. The service is killed and stays away until the naive client's I/O thread is blocked (at least `FIRST_OUTAGE_S`).
3. It returns, and is killed and started again after random pauses, until the naive client has died.
4. It returns for good; our client must be answered again, everything comes to rest, and is counted again.

One thread does it all: it waits by looking (`_tick`), 20 times a second.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from datacenter.demo.outcome import BLOCKED, Attached, Forecast, Ledger, Naive, Ours, Outcome
from datacenter.demo.scene import Row, Scene
from datacenter.demo.watch import WHOLE_PLAY_S, Watched, forecast
from datacenter.errors import DatacenterError
from datacenter.sockets.ledger_compare import compare_with_proc
from datacenter.testing import Launcher, Process, free_port
from leakline import proc
from leakline.errors import LeaklineError
from leakline.facts import Recorded

TICK_S = 0.05
READY_S = 15.0  # for a process to start, on a busy machine
FIRST_OUTAGE_S = 15.0
FIRST_OUTAGE_MAX_S = 22.0
OUTAGE_S = (0.3, 2.0)
PAUSE_S = (0.5, 2.0)  # from the service's return to its next end
ANSWERED_AGAIN_S = 2.0
REST_S = 5.0
END_S = 12.0  # kept for the last return, the rest and the verdicts
NAIVE_WINDOW_S = 30.0

ORDERLY_END_S = 1.0  # for each of ours
REPORTED_EVERY_S = 1.0  # by the clients

ATTACHED_FOR = "3s"

NAIVE = "naive client"
TARGET = "greeter.hello"
CALLS_PER_S = 32.0  # as in casebook/a_undrained_monitor/service_cli_demo.py
RECONNECT_MS = 10
STANDARD_STREAMS = (0, 1, 2)


class DemoError(DatacenterError):
    """A process of the demo did not start; the message says which, and what it wrote."""

    code = "demo"


class Play:
    """One performance. `seconds` bounds it; `show(scene)` is called at each look. Make one, `run` it once."""

    def __init__(self, seconds: float, show: Callable[[Scene], None]) -> None:
        self._show = show
        self._began = time.monotonic()
        self._seconds = seconds
        self._curtain = self._began + seconds - END_S
        self._latest = self._began + seconds - 3 * ORDERLY_END_S - 1.0
        self._stage = "starting"
        self._events: list[tuple[float, str]] = []
        self._watched: dict[str, Watched] = {}
        self._launch = Launcher()
        self._outages = 0
        self._first_outage_s = 0.0
        self._before: dict[str, dict[str, int]] = {}
        self._troubles: list[str] = []
        self._forecast: Forecast | None = None
        self._naive_died = False
        self._attached: Attached | None = None

    def run(self) -> Outcome:
        """Play it, and say what was seen. Raises DemoError when a process does not start; leaves none behind."""
        with tempfile.TemporaryDirectory(prefix="datacenter-demo-") as folder, self._launch, closing(self):
            self._folder = Path(folder)
            self._begin()
            self._first_outage()
            while self._watched[NAIVE].alive and time.monotonic() < self._curtain:
                self._pause(random.uniform(*PAUSE_S))
                self._kill_service()
                self._pause(random.uniform(*OUTAGE_S))
                self._start_service()
            outcome = self._end()
            for name in ("client", "service", "broker"):  # in order; the launcher kills what is left
                self._watched[name].process.end(ORDERLY_END_S)
        return outcome

    def close(self) -> None:
        """Ends the naive client, which is no child of this process but of the recorder's. Idempotent."""
        naive = self._watched.get(NAIVE)
        if naive is not None and naive.process.running:
            naive.process.end(ORDERLY_END_S)  # SIGTERM is passed on

    # --- the acts

    def _begin(self) -> None:
        self._broker, self._listen = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        self._ready(self._watch("broker", self._datacenter("up", "--listen", self._broker)))
        self._start_service()
        pace = str(CALLS_PER_S), str(RECONNECT_MS)
        client = self._launch.python("-m", "datacenter.demo.client", self._broker, TARGET, *pace)
        self._ready(self._watch("client", client))
        self._until(lambda: self._answered("client"), READY_S)
        self._pause(1.0)
        self._before = {name: _kinds(self._watched[name].pid) for name in ("broker", "client")}
        self._start_naive()
        self._until(lambda: self._answered(NAIVE), READY_S)
        self._second = self._launch.python(naive_client(), self._broker, TARGET)
        self._tell("both clients call the service at the same pace")
        self._pause(2.0)

    def _first_outage(self) -> None:
        began = time.monotonic()
        self._kill_service()
        self._pause(FIRST_OUTAGE_S)
        self._until(lambda: _is_blocked(self._watched[NAIVE]), FIRST_OUTAGE_MAX_S - FIRST_OUTAGE_S)
        self._attach()
        self._start_service()
        self._first_outage_s = time.monotonic() - began

    def _attach(self) -> None:
        """Once more, of a client that runs already, and that nobody has prepared."""
        self._stage = f"leakline attach {self._second.pid}"
        self._tell(f"a second naive client runs without the recorder: leakline attach {self._second.pid}")
        output = self._folder / "attached.json"
        words = (
            "-m",
            "leakline",
            "attach",
            str(self._second.pid),
            "--for",
            ATTACHED_FOR,
            "--json",
            "--output",
            str(output),
        )
        attaching = self._launch.python(*words)
        self._until(lambda: not attaching.running, READY_S)
        with suppress(OSError, msgspec.ValidationError, msgspec.DecodeError):
            found = msgspec.json.decode(output.read_bytes(), type=_AttachReport)
            self._attached = Attached(self._second.pid, attaching.errors.strip(), found.recording)
        self._second.kill()
        self._launch.release(self._second)

    def _end(self) -> Outcome:
        answered = self._answered("client")
        if not self._until(lambda: self._answered("client") > answered, ANSWERED_AGAIN_S + REPORTED_EVERY_S):
            self._troubles.append(f"our client had no answer within {ANSWERED_AGAIN_S:g} s of the service's return")
        self._stage = "coming to rest"
        self._pause(1.0)
        self._until(lambda: all(_kinds(self._watched[name].pid) == was for name, was in self._before.items()), REST_S)
        outcome = Outcome(
            seconds=self._now(),
            outages=self._outages,
            first_outage_s=self._first_outage_s,
            ours=tuple(self._ours(name) for name in self._before),
            naive=self._naive(),
            attached=self._attached,
            troubles=tuple(self._troubles),
        )
        self._stage = "over"
        self._show(self._scene())
        return outcome

    def _ours(self, name: str) -> Ours:
        watched = self._watched[name]
        return Ours(
            name=name,
            pid=watched.pid,
            before=self._before[name],
            after=_kinds(watched.pid),
            answered=self._answered(name) if name == "client" else None,
            failed=int(watched.figures["failed"]) if name == "client" else None,
            ledger=_ledger(watched.pid),
            report=watched.final_report(),
        )

    def _naive(self) -> Naive:
        watched = self._watched[NAIVE]
        return Naive(
            pid=watched.pid,
            status=None if watched.alive else watched.process.wait(),
            last_words=(watched.process.errors.strip().splitlines() or [""])[-1],
            died_at=None if watched.ended_at is None else watched.ended_at - self._began,
            forecast=self._forecast,
            closed_per_second=watched.closed_per_second(),
            answered=self._answered(NAIVE),
            report=watched.final_report(),
        )

    # --- processes

    def _datacenter(self, *words: str) -> Process:
        # As a user would type it: leakline shows command lines.
        return self._launch.python("-m", "datacenter", *words)

    def _watch(
        self, name: str, process: Process, window_s: float = WHOLE_PLAY_S, recording: Path | None = None
    ) -> Watched:
        watched = self._watched[name] = Watched(name, process, window_s, recording)
        return watched

    def _start_service(self) -> None:
        target = "datacenter.demo.greeter:greeter"
        service = self._datacenter("serve", target, "--broker", self._broker, "--listen", self._listen)
        self._stage = "the service starts"
        self._ready(self._watch("service", service))
        self._stage = "the service is up"
        if self._outages:
            self._tell(f"the service is back (pid {service.pid})")

    def _start_naive(self) -> None:
        """As its users would after the last crash: under the recorder, which will name the line."""
        recording = self._folder / "naive.leakline"
        recorder = "-m", "leakline", "run", "--recording", str(recording), "--output", str(self._folder / "report")
        naive = self._launch.python(*recorder, "--", sys.executable, naive_client(), self._broker, TARGET)
        self._ready(self._watch(NAIVE, naive, NAIVE_WINDOW_S, recording))

    def _kill_service(self) -> None:
        process = self._watched["service"].process
        self._outages += 1
        self._stage = f"outage {self._outages}: the service is away"
        self._tell(f"outage {self._outages}: kill -9 {process.pid}, the service")
        process.kill()
        self._launch.release(process)

    def _ready(self, watched: Watched) -> None:
        if self._until(lambda: watched.ready or not watched.alive, READY_S) and watched.alive:
            return
        what = "was not ready" if watched.alive else "ended before it was ready"
        errors = watched.process.errors.strip()
        raise DemoError(
            f"the {watched.name} (pid {watched.pid}) {what}" + (f"; it wrote:\n{errors}" if errors else ""),
            "Is the machine very busy? Try again.",
        )

    def _answered(self, name: str) -> int:
        return int(self._watched[name].figures.get("calls", 0))

    # --- time

    def _pause(self, seconds: float) -> None:
        self._until(lambda: False, seconds)

    def _until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Look on until the condition is true (True) or the time is over, this one's or the whole play's (False)."""
        end = min(time.monotonic() + seconds, self._latest)
        while not condition():
            if time.monotonic() >= end:
                return False
            self._tick()
        return True

    def _tick(self) -> None:
        began = time.monotonic()
        for watched in self._watched.values():
            watched.step()
        self._follow_naive()
        self._show(self._scene())
        time.sleep(max(0.005, began + TICK_S - time.monotonic()))

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _tell(self, text: str) -> None:
        self._events.append((self._now(), text))

    # --- what is seen

    def _follow_naive(self) -> None:
        naive = self._watched.get(NAIVE)
        if naive is None or self._naive_died:
            return
        if not naive.alive:
            self._naive_died = True
            self._tell(f"the naive client (pid {naive.pid}) has died")
        elif self._forecast is None:
            self._forecast = forecast(naive.report, self._now())
            if self._forecast is not None:
                left = self._forecast.left_s
                self._tell(
                    f"leakline: the naive client's I/O thread is blocked and it leaks; it has no descriptor left in"
                    f" {left:.0f} s, at {self._now() + left:.0f} s"
                )

    def _scene(self) -> Scene:
        return Scene(
            elapsed_s=self._now(),
            seconds=self._seconds,
            stage=self._stage,
            outages=self._outages,
            rows=tuple(_row(watched) for watched in self._watched.values()),
            events=tuple(self._events),
            foretold_at_s=None if self._forecast is None else self._forecast.made_at + self._forecast.left_s,
        )


class _AttachReport(msgspec.Struct):
    """Of the JSON that `leakline attach` writes, what is looked at."""

    recording: Recorded


def _row(watched: Watched) -> Row:
    report = watched.report
    return Row(
        name=watched.name,
        pid=watched.pid,
        alive=watched.alive,
        counts=watched.counts() if watched.alive else {},
        limit=None if report is None else report.limit,
        per_second=0.0 if report is None or report.judged is None else report.judged.per_second,
        answered=int(watched.figures["calls"]) if "calls" in watched.figures else None,
        verdict="unknown" if report is None else report.verdict,
        blocked=_is_blocked(watched),
        left_s=None if report is None else report.seconds_to_limit,
    )


def _is_blocked(watched: Watched) -> bool:
    return watched.report is not None and any(finding.id == BLOCKED for finding in watched.report.findings)


def _kinds(pid: int) -> dict[str, int]:
    try:
        return dict(sorted(proc.kinds(pid).items()))
    except LeaklineError:
        return {}


def _ledger(pid: int) -> Ledger | None:
    try:
        comparison = compare_with_proc(pid)
    except DatacenterError:
        return None
    standard = {number: target for number, target in comparison.unowned if number in STANDARD_STREAMS}
    return Ledger(
        owned=len(comparison.owned),
        others=tuple(standard.values()),
        differences=comparison.unexplained(standard),
        exact=comparison.exact,
    )


def naive_client() -> str:
    """The program of incident A; it lies in the casebook, and beside this file is a link to it (in a wheel: a copy)."""
    path = os.path.realpath(Path(__file__).with_name("naive_client.py"))
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative  # command lines are shown to people
