"""What every hold check measures with: descriptors by kind, ledger against /proc, blocked libzmq threads,
distributions.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import leakline
from datacenter.sockets.ledger_compare import compare_with_proc
from leakline import proc
from leakline.errors import LeaklineError
from leakline.rules.standstill import StandstillWatch, is_blocked, role_of

SAMPLE_S = 0.05  # 20 Hz
LONGEST = 4000  # characters of one fault that are shown


def kinds(pid: int) -> dict[str, int]:
    """Open descriptors of a process by kind."""
    return dict(sorted(proc.kinds(pid).items()))


def kinds_at_rest(pid: int, rest_s: float = 0.5, deadline_s: float = 15.0) -> dict[str, int]:
    """The kinds of a process once they have been the same for `rest_s`: what it opens for a moment only, as a listener
    that looks its epoll entry up in fdinfo does, is no baseline.
    """
    seen, since, end = kinds(pid), time.monotonic(), time.monotonic() + deadline_s
    while (now := time.monotonic()) - since < rest_s and now < end:
        time.sleep(0.02)
        if (found := kinds(pid)) != seen:
            seen, since = found, time.monotonic()
    return seen


def ledger_faults(pid: int) -> list[str]:
    """How a process's ledger differs from /proc; [] if it is exact and they are equal but for what the process was
    started with (0, 1, 2) and files.
    """
    found = compare_with_proc(pid)
    faults = [] if found.exact else [f"the ledger is not exact: {found.reason}"]
    if not found.settled:
        faults.append("no quiet moment to compare in")
    faults += [f"{entry.number} ({entry.kind} of {entry.owner}) is not open" for entry in found.missing]
    faults += [f"{entry.number} ({entry.kind} of {entry.owner}) is {target}" for entry, target in found.mismatched]
    faults += [
        f"{number} ({target}) is in no ledger"
        for number, target in found.unowned
        if number > 2 and target.startswith(("socket:", "anon_inode:", "pipe:"))
    ]
    return faults


def wait_for(what: str, true: Callable[[], bool], deadline_s: float = 10.0) -> float:
    """Waits until `true()`; returns the seconds it took. Raises AssertionError naming `what`."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > deadline_s:
            raise AssertionError(f"{what}: not within {deadline_s:g} s")
        time.sleep(0.02)
    return time.monotonic() - began


def wait_for_kinds(pid: int, wanted: dict[str, int], deadline_s: float = 15.0) -> dict[str, int]:
    """The kinds of a process once they are `wanted`, or what they still are after `deadline_s`. Of one that opens
    something now and then, another look would tell of that.
    """
    seen: dict[str, int] = {}

    def as_wanted() -> bool:
        nonlocal seen
        seen = kinds(pid)
        return seen == wanted

    with contextlib.suppress(AssertionError):
        wait_for("descriptors at rest", as_wanted, deadline_s)
    return seen


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def distribution(values: Sequence[float]) -> str:
    """`n=…  median …  90 % …  worst …` in milliseconds."""
    if not values:
        return "n=0"
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.9)]
    return f"n={len(ordered)}  median {at[0] * 1e3:.0f} ms  90 % {at[1] * 1e3:.0f} ms  worst {ordered[-1] * 1e3:.0f} ms"


class Sampler:
    """Looks at the threads of processes at 20 Hz and keeps, for each, the longest standstill of a libzmq thread.

    Used as `with`. `watch(pid, name)` may be called at any time; what has ended is left out from then on.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.longest: dict[str, float] = {}
        self.blocked: dict[str, int] = {}  # samples in which a libzmq thread slept outside epoll
        self._pids: dict[int, str] = {}
        self._watches: dict[tuple[int, int], StandstillWatch] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def watch(self, pid: int, name: str) -> None:
        self.longest.setdefault(name, 0.0)
        self.blocked.setdefault(name, 0)
        self._pids[pid] = name

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + SAMPLE_S, time.monotonic())
            self.samples += 1
            for pid, name in list(self._pids.items()):
                try:
                    self._sample(pid, name)
                except LeaklineError:
                    self._pids.pop(pid, None)

    def _sample(self, pid: int, name: str) -> None:
        for thread in proc.threads(pid):
            role = role_of(thread.name)
            if role is None:
                continue
            self.blocked[name] += is_blocked(thread)
            now = time.monotonic()
            watch = self._watches.get((pid, thread.tid))
            if watch is None:
                self._watches[pid, thread.tid] = StandstillWatch(now, thread)
                continue
            watch.add(now, thread)
            self.longest[name] = max(self.longest[name], watch.seen(role).seconds)


class Doctor:
    """leakline watches processes, by name, while the block runs: what it says of them again and again."""

    def __init__(self, pids: Mapping[str, int], seconds: float) -> None:
        self.looks = 0
        self.faults: list[str] = []
        self._seconds = seconds
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=each) for each in pids.items()]

    def __enter__(self) -> Doctor:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, name: str, pid: int) -> None:
        while not self._stop.is_set():
            try:
                report = leakline.diagnose(pid, self._seconds)
            except LeaklineError as error:
                self.faults.append(f"{name}: leakline could not look: {error}")
                return
            self.looks += 1
            found = [f"{each.id}: {each.title}" for each in report.findings if each.severity != "note"]
            if found or report.verdict == "leak":
                self.faults.append(f"{name}: leakline says {report.verdict}, {found}")


def finish(faults: Sequence[str]) -> None:
    """Ends a check: prints each fault, exits with 1 if there is any."""
    for fault in faults:
        print(f"FAULT: {fault[:LONGEST]}")
    print("does NOT hold" if faults else "holds")
    sys.exit(1 if faults else 0)
