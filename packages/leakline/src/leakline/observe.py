"""The engine of doctor and watch: look at a process again and again, and say at any moment what is wrong with it.

It only reads. The count of descriptors costs a few microseconds (Linux 6.2 or newer) and is taken at each step. When it
moved, the kinds of what came and went are read; those of all now and then, as one kind may replace another, within a
budget of CPU time that makes large processes be read less often. Threads are read only where libzmq has any.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from leakline import proc
from leakline.errors import LeaklineError, NoSuchProcessError, UsageError, ZombieError
from leakline.facts import Closely, Finding, Frame, Limits, PythonHolders, Recorded, Sample, Verdict
from leakline.figures import escaped
from leakline.growth import TOTAL, Growth, judge
from leakline.recorder.recordings import Recordings
from leakline.rules import diagnose
from leakline.rules.grouping import new_since
from leakline.rules.observed import Observed
from leakline.rules.observing import STOPPED
from leakline.rules.standstill import Standstill, StandstillWatch, ThreadRole, role_of, roles_of
from leakline.rules.stuck import unmoved, waiting_together

STEP_S = 0.05
WINDOW_S = 30.0
KINDS_EVERY_S = 1.0  # also when the count stands still
KINDS_SPACING_S = 0.09  # at most about ten times a second
CPU_SHARE = 0.01  # reading the kinds of what moved may take this share of one core
WHOLE_SHARE = 0.005  # and reading those of all, beside it, this one: with the steps it must stay below 2 %
LINKS_SHARE = 0.5  # of a snapshot's time: about what reading the kinds of all will take
CLOSELY_SHARE = 0.01  # looking at what lies behind descriptors may take this share of one core
KINDS_KEPT = 10_000  # of a window at the most: an hour has one each 0.4 s, a day one each 9 s
NEW_THREADS_EVERY_S = 1.0
EVENTFDS_EVERY_S = 0.5
EVENTFDS_ASKED = 64
EVENTFDS_WATCHED = 8  # of those that were signalled: with each step, not at its pace, which may be the program's own
OFF_PACE_S = 0.012
PEAKS_KEPT_S = 120.0
SCHEMA = 1


class Report(msgspec.Struct, frozen=True):
    """What one observation found. `to_json` gives the object of the interface; the other fields serve the terminal."""

    pid: int
    command: str
    seconds: float
    verdict: Verdict
    limit: int | None
    total: int
    highest: int | None
    counts: dict[str, int]
    growth: dict[str, float]
    seconds_to_limit: float | None
    findings: tuple[Finding, ...]
    limits: Limits | None = None
    judged: Growth | None = None
    ended: bool = False
    cpu_seconds: float = 0.0  # what observing cost
    recorded: Recorded | None = None  # where a recorder is loaded into the process
    samples: tuple[Sample, ...] = ()  # what was observed, oldest first

    @property
    def stopped(self) -> bool:
        """Whether the process was stopped (SIGSTOP, a debugger) all the while, so that nothing could grow."""
        return any(finding.id == STOPPED for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1 if there is a finding of severity leak or warning, else 0."""
        return int(any(finding.severity != "note" for finding in self.findings))

    def to_json(self) -> bytes:
        """One JSON object, schema 1, without a line end."""
        recording = {} if self.recorded is None else {"recording": self.recorded}
        told = {
            "schema": SCHEMA,
            "pid": self.pid,
            "command": self.command,
            "seconds": round(self.seconds, 3),
            "verdict": self.verdict,
            "limit": self.limit,
            "total": self.total,
            "highest": self.highest,
            "counts": self.counts,
            "growth": {kind: round(rate, 3) for kind, rate in self.growth.items()},
            "seconds_to_limit": None if self.seconds_to_limit is None else round(self.seconds_to_limit, 1),
            "findings": self.findings,
            **recording,
        }
        return msgspec.json.encode(escaped(msgspec.to_builtins(told)))


class Observation:
    """A look at one process that goes on: call `step` 10 to 20 times a second, and `growth` or `report` at any moment.

    Holds no descriptor between calls. Use it from one thread at a time. `window` is in seconds: what is older is
    forgotten, but for the peaks of the last two minutes. `limit` is an application's own ceiling (`--limit`).
    Raises LeaklineError when the process cannot be looked at. When it ends later, `ended` becomes true, and reports go
    on telling what was seen of it.
    """

    def __init__(
        self, pid: int, *, limit: int | None = None, window: float = WINDOW_S, recording: Path | None = None
    ) -> None:
        if limit is not None and limit < 1:
            raise UsageError(f"a limit of {limit} descriptors has no meaning", "give a positive number: --limit 1024")
        if window <= 0:
            raise UsageError(f"a window of {window:g} s has no meaning", "give a positive number of seconds")
        self.pid = pid
        self.window = window
        self.ended = False
        self.command = proc.command(pid)
        self._started = proc.started(pid)
        self._limits = _limits(pid, limit)
        began = time.thread_time()
        self._begin = self._end = proc.snapshot(pid, started=self._started)
        self._process = proc.LastingProcess(pid, self._started)
        self._kinds = proc.KindCounter(self._process, self._begin.descriptors)
        self._whole_at, self._whole_cost = self._begin.at, (time.thread_time() - began) * LINKS_SHARE
        self._samples: deque[Sample] = deque()
        self._peaks: deque[tuple[float, str, int]] = deque()
        self._threads: dict[int, StandstillWatch] = {}
        self._roles: dict[int, ThreadRole] = {}
        self._threads_listed = self._kinds_at = -float("inf")
        self._cpu = self._quick_cost = 0.0
        self._counts = self._begin.counts()
        self._python: PythonHolders | None = None
        self._unread: dict[int, float] = {}
        self._eventfds_read = -float("inf")
        self._stacks: dict[int, tuple[Frame, ...]] = {}
        self._closely, self._closely_cost, self._closely_at = Closely(), 0.0, -float("inf")
        self._recordings = Recordings(pid, recording)
        self._recorded_closely = recording is not None
        self._recorded: Recorded | None = None
        self._told_the_end = False
        self.step()

    def step(self) -> Sample | None:
        """Look once. None when the process has ended."""
        if self.ended:
            return None
        began = time.thread_time()
        try:
            sample = self._sample()
            self._look_at_threads(sample.at)
            self._look_at_eventfds(sample.at)
        except (NoSuchProcessError, ZombieError):
            self.ended = True
            return None
        finally:
            self._cpu += time.thread_time() - began
        self._keep(sample)
        self._forget(sample.at)
        if self._recorded_closely:
            self._recordings.glimpse()
        return sample

    def samples(self) -> tuple[Sample, ...]:
        """The samples of the window, oldest first; while the total stands still, the first and the last of them."""
        return tuple(self._samples)

    def growth(self) -> Growth:
        """The judgement by now. Pure computation: about a millisecond per kind that moves."""
        peaks: dict[str, int] = {}
        for _, kind, count in self._peaks:
            peaks[kind] = max(count, peaks.get(kind, 0))
        samples = self.samples() or (Sample(self._begin.at, self._begin.total, self._begin.counts()),)
        return judge(samples, self._limits.effective if self._limits else None, peaks)

    def threads(self) -> tuple[Standstill, ...]:
        """libzmq's background threads: their roles, and for how long each has stood still outside epoll."""
        return tuple(watch.seen(self._roles[tid]) for tid, watch in self._threads.items())

    def counts(self) -> dict[str, int]:
        """Descriptors per kind, most first, from the last look at them."""
        return dict(self._counts)

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong by now, gravest first; from the last look at sockets (see `refresh`)."""
        return self._diagnose(self.growth())

    def refresh(self) -> None:
        """Look at everything: sockets, peers, limits, libraries. Some milliseconds for each thousand descriptors."""
        began = time.thread_time()
        try:
            self._end = proc.snapshot(self.pid, started=self._started)
            self._kinds = proc.KindCounter(self._process, self._end.descriptors)
            self._whole_at = self._end.at
            self._counts = self._end.counts()
            self.command = self._end.command  # an exec changes it
            self._samples.append(Sample(self._end.at, self._end.total, self._counts))
            self._limits = _limits(self.pid, self._limits.ceiling if self._limits else None)
            self._recorded = self._recordings.look(self._end)
            self._look_closely()
        except (NoSuchProcessError, ZombieError):
            self.ended = True
        finally:
            self._cpu += time.thread_time() - began

    def opened(self) -> list[int]:
        """Numbers that were opened since the beginning and were still open at the last look at everything."""
        return [each.number for each in new_since(self._begin, self._end)]

    def tell_python(self, holders: PythonHolders) -> None:
        """What was seen of the process's objects from inside: reports from now on name what keeps its descriptors."""
        self._python = holders

    def _look_closely(self) -> None:
        """At relatives, pipes, pidfds, TIME_WAIT; so seldom that it costs `CLOSELY_SHARE` of a core at the most."""
        now = time.monotonic()
        if now - self._closely_at < self._closely_cost / CLOSELY_SHARE:
            return
        began = time.thread_time()
        self._closely = proc.look_closely(self.pid, self._end, self._started)
        tids = {thread.tid for thread in unmoved(self._begin, self._end)}  # also of who may hold what others wait for
        if waiting_together(self._begin, self._end) and any(
            "python" in name for name in (*self._end.libraries, self.command)
        ):
            self._stacks = proc.python_stacks(self.pid, tids)
        self._closely_cost, self._closely_at = time.thread_time() - began, now

    def report(self, *, refresh: bool = True) -> Report:
        """Everything known by now. With `refresh=False` sockets and limits are those of the last look at them."""
        if refresh and not self.ended:
            self.refresh()
        if self.ended and not self._told_the_end:
            self._told_the_end = True
            self._recorded = self._recordings.look(None) or self._recorded
        growth = self.growth()
        seen, findings = self._end, self._diagnose(growth)
        counts = self._recorded.counts() if self.ended and self._recorded is not None else None
        stands = growth.verdict == "steady" and any(finding.id == STOPPED for finding in findings)
        return Report(
            pid=self.pid,
            command=self.command,
            seconds=growth.seconds,
            verdict="unknown" if stands else _verdict(growth, findings, self._recorded if self.ended else None),
            limit=growth.limit,
            total=sum(counts.values()) if counts else growth.total,
            highest=None if seen.highest < 0 else seen.highest,
            counts=counts or self._counts,
            growth=growth.rates(),
            seconds_to_limit=growth.seconds_to_limit,
            findings=findings,
            limits=self._limits,
            judged=growth,
            ended=self.ended,
            cpu_seconds=self._cpu,
            recorded=self._recorded,
            samples=self.samples(),
        )

    def _diagnose(self, growth: Growth) -> tuple[Finding, ...]:
        return diagnose(
            Observed(
                pid=self.pid,
                growth=growth,
                counts=self._counts,
                begin=self._begin,
                end=self._end,
                threads=self.threads(),
                ended=self.ended,
                recorded=self._recorded,
                closely=self._closely,
                stacks=self._stacks,
                python=self._python,
                unread={number: self._eventfds_read - since for number, since in self._unread.items()},
            )
        )

    def _sample(self) -> Sample:
        now = time.monotonic()
        total = self._process.count()
        moved = not self._samples or total != sum(self._counts.values())
        kinds = self._quick_kinds(now, total) if moved else None
        if kinds is None and self._whole_due(now, moved):
            began = time.thread_time()
            kinds = self._kinds.whole()
            self._whole_cost, self._whole_at = time.thread_time() - began, now
        if kinds is None:
            return Sample(now, total)
        self._counts, self._kinds_at = kinds, now
        return Sample(now, total, kinds)

    def _quick_kinds(self, now: float, total: int) -> dict[str, int] | None:
        if now - self._kinds_at < max(KINDS_SPACING_S, self._quick_cost / CPU_SHARE, self.window / KINDS_KEPT):
            return None
        began = time.thread_time()
        kinds = self._kinds.quick(total)
        self._quick_cost = time.thread_time() - began
        return kinds

    def _whole_due(self, now: float, moved: bool) -> bool:
        """Whether to read the kinds of all: what moved did not add up, or one kind may have replaced another."""
        spacing = max(KINDS_SPACING_S, self._whole_cost / WHOLE_SHARE)
        if not moved:
            spacing = max(KINDS_EVERY_S, spacing)
        return now - self._whole_at >= spacing and now - self._kinds_at >= self.window / KINDS_KEPT

    def _look_at_threads(self, now: float) -> None:
        if now - self._threads_listed >= NEW_THREADS_EVERY_S:
            self._threads_listed = now
            self._roles = self._zmq_threads()
        if not self._roles and not self._threads:
            return
        alive = {thread.tid: thread for thread in proc.threads(self.pid, self._roles)}
        for tid in self._threads.keys() - alive.keys():
            del self._threads[tid]
        for tid, thread in alive.items():
            if tid in self._threads:
                self._threads[tid].add(now, thread)
            else:
                self._threads[tid] = StandstillWatch(now, thread)

    def _zmq_threads(self) -> dict[int, ThreadRole]:
        """libzmq's threads by tid. Those without names are searched for only where it is mapped: all are to be read."""
        named = proc.threads_named(self.pid, lambda name: role_of(name) is not None)
        if not named and not any("libzmq" in name for name in self._end.libraries):
            return {}
        return roles_of(proc.threads(self.pid, named or None), uses_libzmq=True)

    def _look_at_eventfds(self, now: float) -> None:
        """Which of libzmq's sockets have had something to read ever since: a monitor's reader that nobody drains.

        A signalled one is looked at often: one that is drained now and then is signalled again at many looks.
        """
        if not self._threads:
            return
        if now - self._eventfds_read >= EVENTFDS_EVERY_S:
            self._eventfds_read = now
            asked = [each.number for each in self._end.descriptors if each.kind == "eventfd"][:EVENTFDS_ASKED]
            self._unread = {number: self._unread.get(number, now) for number in proc.signalled(self.pid, asked)}
        elif self._unread:
            watched = random.sample(list(self._unread), min(len(self._unread), EVENTFDS_WATCHED))
            time.sleep(random.uniform(0.0, OFF_PACE_S))
            for number in set(watched) - proc.signalled(self.pid, watched):
                del self._unread[number]

    def _keep(self, sample: Sample) -> None:
        """Add a sample; while the total stands still only the first and the last are kept, so that days fit."""
        if len(self._samples) > 1 and sample.kinds is None:
            last, before = self._samples[-1], self._samples[-2]
            close = sample.at - before.at < self.window / KINDS_KEPT
            if last.kinds is None and (close or before.total == last.total == sample.total):
                self._samples.pop()
        self._samples.append(sample)

    def _forget(self, now: float) -> None:
        """Drop what is older than the window, and keep of it only how high each kind stood."""
        while self._samples and now - self._samples[0].at > self.window:
            old = self._samples.popleft()
            self._peaks.append((old.at, TOTAL, old.total))
            for kind, count in (old.kinds or {}).items():
                self._peaks.append((old.at, kind, count))
        while self._peaks and now - self._peaks[0][0] > PEAKS_KEPT_S:
            self._peaks.popleft()


def looks(observation: Observation, seconds: float | None) -> Iterator[Sample]:
    """Step an observation every `STEP_S` and give each sample, for so many seconds (None: until the process ends)."""
    due = time.monotonic()
    until = float("inf") if seconds is None else due + seconds
    while True:
        sample = observation.step()
        if sample is None:
            return
        yield sample
        now = time.monotonic()
        if now >= until:
            return
        due = max(due + STEP_S, now)  # a late step is not made up for: the machine is busy enough
        time.sleep(min(due, until) - now)


def positive(seconds: float) -> float:
    """The seconds of an observation; raises UsageError if there is nothing in them to observe."""
    if not 0 < seconds < float("inf"):
        raise UsageError(f"cannot observe for {seconds:g} s", "give a positive duration: --for 10s")
    return seconds


def observe(
    pid: int,
    seconds: float = 10.0,
    *,
    limit: int | None = None,
    on_sample: Callable[[Observation, Sample], None] | None = None,
) -> Report:
    """Watch a process for so many seconds and report; ends early when the process does. Raises LeaklineError.

    `on_sample` is called after each look (20 times a second), for a progress display.
    """
    observation = Observation(pid, limit=limit, window=positive(seconds) + 1.0)
    for sample in looks(observation, seconds):
        if on_sample is not None:
            on_sample(observation, sample)
    return observation.report()


def report_of(recorded: Recorded | None, pid: int, command: str) -> Report:
    """The report of a recording alone: of a process that is gone, or was gone before it could be looked at."""
    counts = {} if recorded is None else recorded.counts()
    ended = recorded is None or not recorded.live
    growth = judge((Sample(time.monotonic(), sum(counts.values()), counts),))
    findings = diagnose(Observed(pid=pid, growth=growth, counts=counts, ended=ended, recorded=recorded))
    return Report(
        pid=pid,
        command=command,
        seconds=0.0 if recorded is None else recorded.seconds,
        verdict=_verdict(growth, findings, recorded if ended else None),
        limit=None,
        total=growth.total,
        highest=None,
        counts=counts,
        growth={},
        seconds_to_limit=None,
        findings=findings,
        judged=growth,
        ended=ended,
        recorded=recorded,
    )


def _verdict(growth: Growth, findings: tuple[Finding, ...], ended: Recorded | None) -> Verdict:
    """What the counts say, unless they are too few and the recording of a whole life (`ended`) knows better."""
    if growth.verdict != "unknown":
        return growth.verdict
    if any(finding.severity == "leak" for finding in findings):
        return "leak"
    return "steady" if ended is not None and ended.mode == "launched" and not ended.incomplete else "unknown"


def _limits(pid: int, ceiling: int | None) -> Limits | None:
    try:
        found = proc.limits(pid)
    except (NoSuchProcessError, ZombieError):
        raise
    except LeaklineError:
        return None
    return msgspec.structs.replace(found, ceiling=ceiling)
