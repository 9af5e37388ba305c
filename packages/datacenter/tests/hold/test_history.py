"""The checker of histories finds each kind of violation, and nothing in a history that has none."""

from __future__ import annotations

import pytest

from hold.history import Answered, Event, Held, Resolved, faults, worst_staleness

STALE_S = 5.0
SOUND: list[Event] = [
    Held("i", 10.0, 13.0),
    Resolved("a", 11.0, 11.1, 100, {"i": 90}),
    Answered("i", 90, 12.0),
    Resolved("a", 17.9, 18.0, 100, {"i": 90}),  # 4.9 s after the end
    Resolved("a", 19.0, 19.1, 110, {}),
    Resolved("b", 18.0, 18.1, 100, {"i": 90}),
    Held("i", 20.0, 23.0),
    Resolved("a", 20.0, 20.1, 120, {"i": 120}),
    Answered("i", 120, 21.0),
]


def test_a_sound_history_has_no_fault() -> None:
    assert faults(SOUND, stale_s=STALE_S) == []
    assert faults(list(reversed(SOUND)), stale_s=STALE_S) == []  # however it was collected
    assert worst_staleness(SOUND) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Resolved("b", 18.2, 18.3, 100, {"i": 90}), "b told of i 5.20 s after its lease had ended"),
        (Resolved("a", 20.2, 20.3, 119, {"i": 120}), "a: version 119 after 120"),
        (Resolved("a", 20.2, 20.3, 121, {"i": 90}), "a: i has epoch 90 after 120"),
        (Answered("i", 90, 19.2), "i answered by epoch 90 0.100 s after somebody was told"),
        (Answered("i", 90, 20.5), "i answered by epoch 90 1.400 s after"),
    ],
    ids=["stale", "version back", "epoch back", "answers after it is over", "answers by its former lease"],
)
def test_each_violation_is_found(wrong: Event, said: str) -> None:
    found = faults([*SOUND, wrong], stale_s=STALE_S)
    assert any(said in each for each in found), found


def test_a_lease_that_was_renewed_later_does_not_excuse_what_was_told_before() -> None:
    events: list[Event] = [Held("i", 0.0, 3.0), Resolved("a", 9.0, 9.1, 1, {"i": 1}), Held("i", 10.0, 13.0)]
    assert faults(events, stale_s=STALE_S) == ["a told of i 6.00 s after its lease had ended"]


def test_nothing_is_said_of_an_instance_that_never_told_of_its_lease() -> None:
    assert faults([Resolved("a", 9.0, 9.1, 1, {"i": 1})], stale_s=STALE_S) == []
