"""Checks a history of a shared registry, as its instances and clients wrote it down. Pure: events in, faults out.

All times are of one clock, that of leases (datacenter.clock), in seconds; one machine has one.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Held:
    """At `at` this instance knew that its lease certainly holds until `until`."""

    instance: str
    at: float
    until: float


@dataclass(frozen=True)
class Resolved:
    """`by` (a broker, or what a client that moves between them believes) said, somewhere between `asked` and `at`,
    which instances there are: id -> epoch.
    """

    by: str
    asked: float
    at: float
    version: int
    epochs: dict[str, int] = field(hash=False)


@dataclass(frozen=True)
class Answered:
    """This instance answered a call as owner at `at`, by its lease of `epoch`."""

    instance: str
    epoch: int
    at: float


Event = Held | Resolved | Answered


def faults(events: Iterable[Event], *, stale_s: float) -> list[str]:
    """What is wrong with a history; [] if nothing is.

    stale_s: no answer may hold an instance whose lease ended longer before.
    """
    events = list(events)
    held = _leases([event for event in events if isinstance(event, Held)])
    resolved = sorted((event for event in events if isinstance(event, Resolved)), key=lambda event: event.at)
    answered = [event for event in events if isinstance(event, Answered)]
    return [
        *_stale(resolved, held, stale_s),
        *_going_back(resolved),
        *_not_owners(answered, resolved),
    ]


def worst_staleness(events: Iterable[Event]) -> float:
    """The longest time for which an instance was told after its lease had ended; 0 if none was."""
    events = list(events)
    held = _leases([event for event in events if isinstance(event, Held)])
    ages = [
        event.asked - until
        for event in events
        if isinstance(event, Resolved)
        for instance in event.epochs
        if (until := _until(held, instance, event.asked)) is not None
    ]
    return max(0.0, *ages) if ages else 0.0


_Leases = dict[str, tuple[list[float], list[float]]]


def _leases(held: list[Held]) -> _Leases:
    """instance -> (moments, until when its lease was known to hold at each of them: the highest so far)."""
    found: _Leases = defaultdict(lambda: ([], []))
    for event in sorted(held, key=lambda event: event.at):
        moments, ends = found[event.instance]
        moments.append(event.at)
        ends.append(max(event.until, ends[-1] if ends else event.until))
    return found


def _until(held: _Leases, instance: str, at: float) -> float | None:
    """Until when the lease held that the instance knew of at `at`, None before its first."""
    moments, ends = held.get(instance, ([], []))
    index = bisect.bisect_right(moments, at) - 1
    return ends[index] if index >= 0 else None


def _stale(resolved: Sequence[Resolved], held: _Leases, stale_s: float) -> list[str]:
    found = []
    for event in resolved:
        for instance in event.epochs:
            until = _until(held, instance, event.asked)
            if until is not None and event.asked - until > stale_s:
                found.append(f"{event.by} told of {instance} {event.asked - until:.2f} s after its lease had ended")
    return found


def _going_back(resolved: Sequence[Resolved]) -> list[str]:
    """Of one teller neither the version nor an instance's epoch ever falls."""
    found = []
    latest: dict[str, Resolved] = {}
    epochs: dict[tuple[str, str], int] = {}
    for event in resolved:
        before = latest.get(event.by)
        if before is not None and event.version < before.version:
            found.append(f"{event.by}: version {event.version} after {before.version}")
        latest[event.by] = event
        for instance, epoch in event.epochs.items():
            known = epochs.get((event.by, instance), 0)
            if epoch < known:
                found.append(f"{event.by}: {instance} has epoch {epoch} after {known}")
            epochs[event.by, instance] = max(known, epoch)
    return found


def _not_owners(answered: Sequence[Answered], resolved: Sequence[Resolved]) -> list[str]:
    """Once anybody was told that an epoch is over, nobody answers by it: it was gone by the end of that answer."""
    over: dict[tuple[str, int], float] = {}
    seen: dict[str, dict[str, int]] = defaultdict(dict)  # by teller: instance -> epoch, as told last
    for event in resolved:
        before = seen[event.by]
        for instance, epoch in before.items():
            if event.epochs.get(instance) != epoch:
                over.setdefault((instance, epoch), event.at)
        seen[event.by] = event.epochs
    return [
        f"{event.instance} answered by epoch {event.epoch} {event.at - over[event.instance, event.epoch]:.3f} s after "
        "somebody was told that it is over"
        for event in answered
        if event.at > over.get((event.instance, event.epoch), float("inf"))
    ]
