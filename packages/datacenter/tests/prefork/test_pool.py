"""The pool's decisions: restarts and their pauses, replacement without a gap, ends and their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacenter import options
from datacenter.prefork.pool import End, Kill, Pool, PoolOptions, Start

PATIENCE_S = 2.0
OPTIONS = PoolOptions(restart_min_s=0.1, restart_max_s=1.0, stable_s=1.0, start_deadline_s=10.0)


def new_pool(places: int = 2) -> Pool:
    return Pool(places, patience_s=PATIENCE_S, now=0.0, options=OPTIONS)


def started(pool: Pool, now: float) -> list[int]:
    """The numbers of what is due to start now; nothing else is due."""
    actions = pool.due(now)
    assert all(isinstance(action, Start) for action in actions)
    return [action.number for action in actions]


def running(pool: Pool, now: float = 0.0) -> list[int]:
    """All places filled with ready processes."""
    numbers = started(pool, now)
    for number in numbers:
        pool.serving(now, number)
        assert pool.ready(now, number) == []
    assert pool.all_ready
    return numbers


def test_each_place_is_filled_once() -> None:
    pool = new_pool(3)
    assert [(action.number, action.place) for action in pool.due(0.0) if isinstance(action, Start)] == [
        (1, 0), (2, 1), (3, 2),
    ]  # fmt: skip
    assert pool.due(0.0) == []
    assert not pool.all_ready


def test_one_that_had_worked_is_replaced_at_once() -> None:
    pool = new_pool()
    first, _ = running(pool)
    pool.ended(5.0, first)
    assert started(pool, 5.0) == [3]
    assert pool.restarts == 1


def test_one_that_cannot_start_is_tried_after_pauses_that_double() -> None:
    pool = new_pool(1)
    now, pauses = 0.0, []
    for _ in range(8):
        (number,) = started(pool, now)
        pool.ended(now, number)
        due = pool.next_deadline()
        assert due is not None
        assert pool.due((now + due) / 2) == []
        pauses.append(due - now)
        now = due
    assert pauses[0] <= 0.1
    assert pauses[-1] >= 0.5  # the longest is 1 s, with up to half off
    assert max(pauses) <= 1.0


def test_a_restart_after_stable_work_begins_with_the_shortest_pause_again() -> None:
    pool = new_pool(1)
    now = 0.0
    for _ in range(6):
        (number,) = started(pool, now)
        pool.ended(now, number)
        now = pool.next_deadline() or now
    (number,) = started(pool, now)
    pool.serving(now, number)
    pool.ended(now + 1.0, number)
    (number,) = started(pool, now + 1.0)
    pool.ended(now + 1.0, number)
    assert (pool.next_deadline() or 0.0) - now - 1.0 <= 0.1


def test_what_does_not_start_in_time_is_killed_once() -> None:
    pool = new_pool(1)
    (number,) = started(pool, 0.0)
    assert pool.next_deadline() == 10.0
    assert pool.due(9.9) == []
    assert pool.due(10.0) == [Kill(number, "did not start in time")]
    assert pool.due(11.0) == []
    pool.ended(11.0, number)
    assert pool.next_deadline() is not None


def test_one_that_serves_may_wait_for_the_registry_for_ever() -> None:
    pool = new_pool(1)
    (number,) = started(pool, 0.0)
    pool.serving(1.0, number)
    assert pool.next_deadline() is None
    assert not pool.all_ready


def test_a_renewal_replaces_place_by_place_and_never_before_the_successor_is_ready() -> None:
    pool = new_pool()
    old = running(pool)
    pool.renew(5.0)
    (third,) = started(pool, 5.0)
    pool.serving(5.0, third)
    assert pool.due(6.0) == []
    assert pool.ready(6.0, third) == [End(old[0])]
    (fourth,) = started(pool, 6.0)
    assert pool.ready(7.0, fourth) == [End(old[1])]
    assert pool.all_ready
    for number in old:
        pool.ended(8.0, number)
    assert pool.due(9.0) == []
    assert pool.restarts == 0


def test_code_that_cannot_start_leaves_the_old_one_at_work() -> None:
    pool = new_pool()
    old = running(pool)
    pool.renew(5.0)
    now = 5.0
    for _ in range(5):
        (number,) = started(pool, now)
        pool.ended(now, number)
        now = pool.next_deadline() or now
    assert {*pool.members} == {*old}
    assert all(member.state == "ready" for member in pool.members.values())


def test_a_successor_stays_when_what_it_replaces_dies_first() -> None:
    pool = new_pool()
    old = running(pool)
    pool.renew(5.0)
    (third,) = started(pool, 5.0)
    pool.ended(5.5, old[0])
    assert pool.due(5.5) == []
    assert pool.ready(6.0, third) == []
    (fourth,) = started(pool, 6.0)
    assert pool.ready(6.0, fourth) == [End(old[1])]


def test_a_place_that_was_drained_by_name_stays_empty_until_a_renewal() -> None:
    pool = new_pool()
    first, second = running(pool)
    pool.retired(first)
    pool.ended(5.0, first)
    assert pool.due(100.0) == []
    assert not pool.closed
    pool.retired(second)
    assert not pool.closed
    pool.ended(101.0, second)
    assert pool.closed
    pool.renew(102.0)
    assert len(started(pool, 102.0)) == 1


def test_a_stop_is_bounded_and_starts_nobody() -> None:
    pool = new_pool()
    first, second = running(pool)
    assert pool.stop(5.0) == [End(first), End(second)]
    assert pool.stop(5.5) == []
    pool.ended(6.0, first)
    assert pool.due(6.0) == []
    end = 5.0 + PATIENCE_S + options.END_MARGIN_S
    assert pool.next_deadline() == end
    assert pool.due(end) == [Kill(second, "did not end in time")]
    pool.ended(end, second)
    assert not pool.members


def test_an_urgent_stop_shortens_one_that_is_under_way() -> None:
    pool = new_pool(1)
    (number,) = running(pool)
    pool.stop(5.0)
    assert pool.stop(5.1, urgent=True) == [End(number, urgent=True)]
    assert pool.next_deadline() == 5.1 + options.END_MARGIN_S


def test_one_that_has_closed_its_pipe_must_end() -> None:
    pool = new_pool(1)
    (number,) = running(pool)
    pool.leaving(5.0, number)
    assert pool.due(5.0 + options.END_MARGIN_S) == [Kill(number, "did not end in time")]


def test_what_is_told_of_an_old_one_concerns_nobody() -> None:
    pool = new_pool(1)
    (number,) = running(pool)
    pool.ended(5.0, number)
    (successor,) = started(pool, 5.0)
    pool.ended(5.1, number)
    pool.serving(5.1, number)
    assert pool.ready(5.1, number) == []
    assert [*pool.members] == [successor]


@pytest.mark.parametrize("starts_first", [True, False])
def test_a_place_that_is_drained_in_its_turn_holds_up_no_renewal(starts_first: bool) -> None:
    pool = new_pool()
    first, second = running(pool)
    pool.retired(second)
    pool.ended(5.0, second)
    pool.renew(6.0)
    successor = started(pool, 6.0)[0] if starts_first else 0
    pool.retired(first)
    pool.ended(6.1, successor)
    (in_the_other_place,) = started(pool, 6.2)
    assert pool.members[in_the_other_place].place == 1


@given(
    st.lists(st.tuples(st.sampled_from(["serving", "ready", "ended", "retired", "renew", "wait"]), st.integers(0, 9)))
)
def test_whatever_happens_no_place_has_two_at_work_and_none_is_forgotten(events: list[tuple[str, int]]) -> None:
    pool, now = new_pool(), 0.0
    for what, which in events:
        now += 0.05
        pool.due(now)
        numbers = sorted(pool.members)
        number = numbers[which % len(numbers)] if numbers else 0
        if what == "renew":
            pool.renew(now)
        elif what == "wait":
            now += 0.3
        elif what == "retired":
            pool.retired(number)
        else:
            getattr(pool, what)(now, number)
        alive = [member for member in pool.members.values() if member.state != "ending"]
        for place in range(2):
            assert sum(member.place == place for member in alive) <= 2
    # Left alone, every place that was not drained is filled with the present code, or empty because it was.
    for _ in range(60):
        now += 1.1
        for action in pool.due(now):
            if isinstance(action, (Kill, End)):
                pool.ended(now, action.number)
        for number, member in list(pool.members.items()):
            if member.state == "ending":
                pool.ended(now, number)
            else:
                pool.ready(now, number)
    assert pool.all_ready
    assert len(pool.members) <= 2
