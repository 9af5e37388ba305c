"""What clients say of their calls against what services say that they executed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datacenter.options import MAX_RESENDS
from datacenter.testing import Process

#: outcome -> how often a call that ended so may have been executed, if it may not be repeated
ONCE = {
    "answered": (1, 1),
    "LostError": (0, 1),
    "DeadlineError,sent": (0, 1),
    "DeadlineError,unsent": (0, 0),
    "BusyError": (0, 0),
}
SHOWN = 5


def executions(path: Path) -> dict[str, list[int]]:
    """call -> the pids that executed it."""
    found: dict[str, list[int]] = {}
    for line in path.read_text().splitlines():
        call, pid = line.split()
        found.setdefault(call, []).append(int(pid))
    return found


def faults(executed: dict[str, list[int]], logs: Iterable[Path], late_s: float) -> list[str]:
    """What does not fit: at most a few examples of each kind."""
    found: dict[str, list[str]] = {}
    seen: Counter[str] = Counter()
    for log in logs:
        for line in log.read_text().splitlines():
            call, method, outcome, late, pid = line.split()
            seen[call] += 1
            pids = executed.get(call, [])
            low, high = ONCE.get(outcome, (1, 0))
            if method == "again" and (high or outcome == "BusyError"):
                high = 1 + MAX_RESENDS
            if low > high:
                found.setdefault(f"ended as {outcome}", []).append(call)
            elif not low <= len(pids) <= high:
                found.setdefault(f"{method}, {outcome}, executed {len(pids)} times", []).append(call)
            elif outcome == "answered" and int(pid) not in pids:
                found.setdefault("answered by an instance that did not execute it", []).append(call)
            if float(late) > late_s:
                found.setdefault(f"ended more than {late_s} s after its deadline", []).append(f"{call} {late}")
    found["ended more than once"] = [call for call, count in seen.items() if count > 1]
    found["executed, and its end is not known"] = [call for call in executed if call not in seen and call != "first"]
    return [f"{len(calls)} × {what}: {' '.join(calls[:SHOWN])}" for what, calls in found.items() if calls]


def rest(client: Process) -> dict[str, Any]:
    """Has an accounting client end its calls; its counts since the last time."""
    lines = len(client.lines)
    client.tell("rest")
    _, found = client.wait_line(r'^{"rest": (.*)}$', 60.0, after=lines)
    told: dict[str, Any] = json.loads(found[1])
    return told


def rest_faults(name: str, told: dict[str, Any]) -> list[str]:
    """What a client at rest must not have."""
    never = ("hung", "not_ended", "ended_twice", "in_flight", "waiting")
    return [f"{name}: {told[what]} calls {what}" for what in never if told[what]]


def too_late(told: dict[str, Any], executed: Path) -> list[str]:
    """The calls that no killed process explains: what the client said of each, and who had it. Nobody's: it was stuck
    on its way; somebody's: in the queue of a process that lives, or its result was.
    """
    by = executions(executed) if told["too_late"] else {}
    return [f"{call}: {error}; executed by {by.get(call, 'nobody')}" for call, error in told["too_late"]]
