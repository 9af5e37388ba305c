"""`recorded.growing`: a line of a finished program that goes on opening, told from a start and from a pool. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leakline.facts import Alive, Frame, Origin, Recorded
from leakline.rules import diagnose

LINE = Frame("open_one", "program.py", 7, "python")


def ended(
    opened: int,
    *,
    first_s: float,
    last_s: float,
    recent: int,
    closed: int = 0,
    stacks: int = 1,
    seconds: float = 10.0,
) -> Recorded:
    """A recording of that length; its line opened from `first_s` to `last_s`, `recent` of them in the second half."""
    origin = Origin(
        opened - closed,
        (LINE,),
        stacks=stacks,
        opened=opened,
        closed=closed,
        oldest_s=seconds - first_s,
        newest_s=seconds - last_s,
    )
    return Recorded("r", "launched", seconds, False, opened, closed, (Alive("pipe", origin, recent=recent),))


@pytest.mark.parametrize(
    ("recorded", "leaks"),
    [
        (ended(100, first_s=0.1, last_s=9.9, recent=50), True),
        (ended(8, first_s=1.0, last_s=9.0, recent=4), True),
        (ended(7, first_s=1.0, last_s=9.0, recent=3), False),  # a handful
        (ended(100, first_s=0.1, last_s=9.9, recent=40, closed=21), False),  # most are closed: the last ones are open
        (ended(40, first_s=1.0, last_s=1.1, recent=0), False),  # a pool that is filled at the start
        (ended(41, first_s=1.0, last_s=9.0, recent=1), False),  # and to which one was added
        (ended(40, first_s=6.0, last_s=6.1, recent=40), False),  # filled late, by one loop, and then used
        (ended(40, first_s=0.2, last_s=0.2, recent=40, seconds=0.3), True),  # a loop with which the program ends
        (ended(40, first_s=0.2, last_s=0.2, recent=40, seconds=0.39), False),  # or after which it goes on
        (ended(8, first_s=0.1, last_s=0.3, recent=4, stacks=4, seconds=0.3), False),  # four pipes, each from elsewhere
        (ended(99, first_s=0.1, last_s=9.9, recent=50, stacks=80), False),
        (ended(100, first_s=0.1, last_s=9.9, recent=50, stacks=80), True),  # a recursion, at every depth
    ],
)
def test_a_leak_needs_births_that_go_on(scene: Any, recorded: Recorded, leaks: bool) -> None:
    found = [finding.id for finding in diagnose(scene([], ended=True, recorded=recorded))]
    assert found == (["recorded.growing"] if leaks else [])


def test_a_loop_that_ended_for_want_of_descriptors_was_going_on(scene: Any) -> None:
    recorded = ended(40, first_s=6.0, last_s=6.1, recent=40)
    found = diagnose(scene([], ended=True, recorded=msgspec.structs.replace(recorded, exhausted=1)))
    assert [finding.id for finding in found] == ["recorded.growing", "limit.exhausted"]


def test_of_a_process_that_runs_the_growth_is_judged(scene: Any) -> None:
    recorded = msgspec.structs.replace(ended(100, first_s=0.1, last_s=9.9, recent=50), live=True)
    assert diagnose(scene([], recorded=recorded)) == ()
