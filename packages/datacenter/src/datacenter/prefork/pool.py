"""Keeps a number of places filled with processes: when to start one, to end one, to kill one. Pure: facts in, actions
out; no process, no clock.

A place has at most one process that does the work, and beside it one that is to replace it (another generation of the
code). The old one is asked to end only when the new one is `ready`; so code that cannot start costs no call. A process
that ends unasked is started again: at once if it had worked for `stable_s`, else after a pause that doubles.

Each process has a number that is never used again: what is told late about an old one concerns nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datacenter import options
from datacenter.backoff import Backoff
from datacenter.checks import check, seconds

State = Literal["starting", "serving", "ready", "ending"]


@dataclass(frozen=True)
class PoolOptions:
    """Named limits of a pool. Seconds. Raises BadOptionError for a value that cannot work."""

    restart_min_s: float = options.RESTART_MIN_S
    restart_max_s: float = options.RESTART_MAX_S
    stable_s: float = options.STABLE_S
    start_deadline_s: float = options.START_DEADLINE_S

    def __post_init__(self) -> None:
        check(
            self,
            restart_min_s=seconds(above=0),
            restart_max_s=seconds(above=0),
            stable_s=seconds(),
            start_deadline_s=seconds(above=0),
        )


@dataclass(frozen=True)
class Start:
    """Make process `number` for `place`."""

    number: int
    place: int


@dataclass(frozen=True)
class End:
    """Ask process `number` to end in order. `urgent`: without waiting for anything."""

    number: int
    urgent: bool = False


@dataclass(frozen=True)
class Kill:
    """Process `number` did not do in time what `why` says."""

    number: int
    why: str


Action = Start | End | Kill


@dataclass
class Member:
    """A process. `changed_at`: when its state began, on the caller's clock."""

    number: int
    place: int
    generation: int
    state: State
    changed_at: float
    kill_at: float | None = None
    killed: bool = False


@dataclass
class _Place:
    backoff: Backoff
    start_at: float | None  # when the next start is due; None: nothing is to be started
    current: int | None = None
    successor: int | None = None
    closed: bool = False  # drained by name: nobody takes this place


class Pool:
    """See the module. Not thread-safe: one owner, who gives the time (`now`: seconds, never goes back).

    `patience_s`: how long a process that was asked to end may take, before it is killed.
    """

    def __init__(self, places: int, *, patience_s: float, now: float, options: PoolOptions | None = None) -> None:
        self.options = options or PoolOptions()
        self.generation = 1
        self.members: dict[int, Member] = {}
        self.stopping = False
        self.restarts = 0
        self._patience_s = patience_s
        self._next_number = 0
        self._places = [_Place(self._new_backoff(), now) for _ in range(places)]

    # --- what happened

    def serving(self, now: float, number: int) -> None:
        """A process does its work, registered or not."""
        self._enter(now, number, "serving", before=("starting",))

    def ready(self, now: float, number: int) -> list[Action]:
        """A process has all that it needs: what it replaces may go."""
        member = self._enter(now, number, "ready", before=("starting", "serving"))
        if member is None:
            return []
        place = self._places[member.place]
        actions: list[Action] = []
        if place.successor == number:
            former, place.current, place.successor = place.current, number, None
            if former is not None:
                actions = self._end(now, former)
        self._want_next_renewal(now)
        return actions

    def ended(self, now: float, number: int) -> None:
        """A process is gone, for whatever reason."""
        member = self.members.pop(number, None)
        if member is None:
            return
        place = self._places[member.place]
        if number not in (place.current, place.successor):
            return
        if place.successor == number:
            place.successor = None
        else:  # its successor, if there is one, is the only hope now
            place.current, place.successor = place.successor, None
        if self.stopping:
            return
        if place.closed:
            self._want_next_renewal(now)  # it may have been the turn of this place
            return
        if place.current is None or self.members[place.current].generation < self.generation:
            self.restarts += 1
            worked = member.state in ("serving", "ready") and now - member.changed_at >= self.options.stable_s
            if worked:
                place.backoff.reset()
            place.start_at = now if worked else now + place.backoff.next()

    def leaving(self, now: float, number: int) -> None:
        """A process has closed its pipe: it ends, or must."""
        member = self.members.get(number)
        if member is not None and member.kill_at is None:
            member.kill_at = now + options.END_MARGIN_S

    def give_up_renewal(self) -> None:
        """The new code cannot be had: those that do their work go on with the old one."""
        self.generation = min((member.generation for member in self.members.values()), default=self.generation)
        for place in self._places:
            if place.current is not None:
                place.start_at = None

    def retired(self, number: int) -> None:
        """A process ends because somebody drained it by name: its place is closed."""
        member = self.members.get(number)
        if member is not None and number in (self._places[member.place].current, self._places[member.place].successor):
            self._places[member.place].closed = True

    def renew(self, now: float) -> None:
        """All processes are to be replaced, place by place, each when its successor is ready. Opens closed places."""
        self.generation += 1
        for place in self._places:
            place.closed = False
            place.backoff = self._new_backoff()
        self._want_next_renewal(now)

    def stop(self, now: float, *, urgent: bool = False) -> list[Action]:
        """All are to end; with `urgent` without waiting for anything, also if they were asked before."""
        self.stopping = True
        for place in self._places:
            place.start_at = None
        return [
            action
            for member in list(self.members.values())
            if urgent or member.state != "ending"
            for action in self._end(now, member.number, urgent=urgent)
        ]

    # --- what is to be done

    def due(self, now: float) -> list[Action]:
        """What the time asks for: starts whose pause is over, ends that take too long."""
        actions: list[Action] = []
        for index, place in enumerate(self._places):
            if place.start_at is not None and place.start_at <= now:
                place.start_at = None
                if place.closed:
                    self._want_next_renewal(now)
                else:
                    actions.append(self._start(now, index))
        for member in self.members.values():
            if member.kill_at is not None and member.kill_at <= now and not member.killed:
                member.killed = True
                why = "start" if member.state == "starting" else "end"
                actions.append(Kill(member.number, f"did not {why} in time"))
        return actions

    def next_deadline(self) -> float | None:
        """When `due` has something to do at the earliest; None: never."""
        times = [place.start_at for place in self._places if place.start_at is not None]
        times += [each.kill_at for each in self.members.values() if each.kill_at is not None and not each.killed]
        return min(times, default=None)

    @property
    def all_ready(self) -> bool:
        """Whether every open place has a ready process of the present code."""
        return all(place.closed or self._is_ready(place.current) for place in self._places)

    @property
    def closed(self) -> bool:
        """Whether every place was closed by a drain, and nobody is left."""
        return not self.members and all(place.closed for place in self._places)

    def __repr__(self) -> str:
        states = ", ".join(f"{member.place}: {member.state}" for member in self.members.values())
        return f"<Pool of {len(self._places)}, generation {self.generation}, {states or 'nobody'}>"

    # --- inside

    def _new_backoff(self) -> Backoff:
        return Backoff(self.options.restart_min_s, self.options.restart_max_s)

    def _is_ready(self, number: int | None) -> bool:
        member = self.members.get(number) if number is not None else None
        return member is not None and member.state == "ready" and member.generation == self.generation

    def _enter(self, now: float, number: int, state: State, *, before: tuple[State, ...]) -> Member | None:
        member = self.members.get(number)
        if member is None or member.state not in before:
            return None
        if member.state == "starting":
            member.changed_at, member.kill_at = now, None  # stable since it works, not since it is registered
        member.state = state
        return member

    def _start(self, now: float, index: int) -> Start:
        self._next_number += 1
        place = self._places[index]
        member = Member(self._next_number, index, self.generation, "starting", now, now + self.options.start_deadline_s)
        self.members[member.number] = member
        if place.current is None:
            place.current = member.number
        else:
            place.successor = member.number
        return Start(member.number, index)

    def _end(self, now: float, number: int, *, urgent: bool = False) -> list[Action]:
        member = self.members.get(number)
        if member is None or member.killed:
            return []
        member.state, member.changed_at = "ending", now
        member.kill_at = now + (options.END_MARGIN_S if urgent else self._patience_s + options.END_MARGIN_S)
        return [End(number, urgent)]

    def _want_next_renewal(self, now: float) -> None:
        """One place at a time: a reload needs room for one process more, not for all."""
        renewing = (place.current is not None and place.start_at is not None for place in self._places)
        if self.stopping or any(renewing) or any(place.successor is not None for place in self._places):
            return
        for place in self._places:
            if place.start_at is not None or place.closed:
                continue
            current = self.members.get(place.current) if place.current is not None else None
            if current is None or current.generation < self.generation:
                place.start_at = now
                return
