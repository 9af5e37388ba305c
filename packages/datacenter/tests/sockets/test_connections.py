"""Connections by identity: every order of events, duplicates and impossible ones included. And when a relay ends."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from datacenter.broker.relay_life import RelayLife
from datacenter.sockets.connections import Connections
from datacenter.sockets.events import NAMES, MonitorEvent

A, B = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


def event(name: str, descriptor: int = 7, endpoint: str = A, generation: int = 1) -> MonitorEvent:
    return MonitorEvent(name, descriptor, endpoint, "owner", generation, 0.0)


def after(*events: MonitorEvent) -> Connections:
    connections = Connections()
    connections.born(1)
    for each in events:
        connections.take(each)
    return connections


def test_the_usual_lives() -> None:
    assert after(event("CONNECTED")).count() == 1
    assert after(event("CONNECTED")).ready() == 0
    ready = after(event("CONNECTED"), event("HANDSHAKE_SUCCEEDED", 0))
    assert (ready.count(), ready.ready(), ready.identities()) == (1, 1, frozenset({(1, 7)}))
    ready.take(event("DISCONNECTED"))
    assert (ready.count(), ready.ready()) == (0, 0)
    served = after(event("ACCEPTED", 7), event("ACCEPTED", 8), event("HANDSHAKE_SUCCEEDED", 0))
    assert (served.count(), served.ready()) == (2, 0), "accepted ones have no address of their own"


def test_what_made_counts_go_wrong() -> None:
    failed = after(event("CONNECTED"), event("HANDSHAKE_FAILED_NO_DETAIL", 104), event("DISCONNECTED"))
    assert failed.count() == 0, "a failed handshake"
    twice = after(event("ACCEPTED"), event("DISCONNECTED"), event("DISCONNECTED"))
    assert (twice.count(), twice.ignored) == (0, 1), "a double disconnect"
    reused = after(event("ACCEPTED"), event("ACCEPTED"))
    assert reused.count() == 1, "the number used again, its DISCONNECTED unseen"
    again = after(event("CONNECTED", 7), event("HANDSHAKE_SUCCEEDED", 0), event("CONNECTED", 8))
    assert (again.count(), again.ready()) == (1, 0), "a new connection to an address ends the former"
    late = after(
        event("CONNECTED", 7), event("CONNECTED", 8), event("HANDSHAKE_SUCCEEDED", 0), event("DISCONNECTED", 7)
    )
    assert (late.count(), late.ready()) == (1, 1), "the end of the former, told late"
    closed = after(event("CONNECTED"))
    closed.gone(1)
    closed.take(event("CONNECTED"))
    assert (closed.count(), closed.ignored) == (0, 1), "an event of a socket that is gone"
    stranger = after(event("CONNECTED", generation=2))
    assert (stranger.count(), stranger.ignored) == (0, 1)


def test_every_order_of_one_life() -> None:
    """At the end nothing but what the last event about each descriptor says."""
    life = [
        event("CONNECTED"),
        event("ACCEPTED", 8),
        event("HANDSHAKE_SUCCEEDED", 0),
        event("HANDSHAKE_FAILED_PROTOCOL", 1),
        event("DISCONNECTED"),
        event("CLOSED", 8),
    ]
    for order in itertools.permutations(life):
        connections = after(*order)
        names = [each.name for each in order]
        open_made = names.index("CONNECTED") > names.index("DISCONNECTED")
        open_accepted = names.index("ACCEPTED") > names.index("CLOSED")
        assert connections.count() == open_made + open_accepted, names
        shaken = names.index("CONNECTED") < names.index("HANDSHAKE_SUCCEEDED")
        failed_later = names.index("HANDSHAKE_FAILED_PROTOCOL") > names.index("HANDSHAKE_SUCCEEDED")
        assert connections.ready() == (open_made and shaken and not failed_later), names


EVENTS = st.builds(
    event,
    st.sampled_from(sorted(NAMES.values())),
    st.integers(5, 8),
    st.sampled_from([A, B]),
    st.integers(1, 3),
)
STEPS = st.lists(st.one_of(EVENTS, st.tuples(st.sampled_from(["born", "gone"]), st.integers(1, 3))), max_size=40)


@settings(max_examples=400, deadline=None)
@given(STEPS, st.booleans())
def test_any_sequence(steps: list[MonitorEvent | tuple[str, int]], doubled: bool) -> None:
    connections = Connections()
    alive: set[int] = set()
    last: dict[tuple[int, int], bool] = {}  # what the last event about an identity said
    for step in steps:
        if isinstance(step, tuple):
            what, generation = step
            getattr(connections, what)(generation)
            (alive.add if what == "born" else alive.discard)(generation)
            if what == "gone":
                last = {key: said for key, said in last.items() if key[0] != generation}
        else:
            for _ in range(2 if doubled else 1):
                connections.take(step)
            if step.generation in alive and step.name in ("CONNECTED", "ACCEPTED", "DISCONNECTED", "CLOSED"):
                last[step.generation, step.value] = step.name in ("CONNECTED", "ACCEPTED")
        found = connections.identities()
        assert found <= {key for key, is_open in last.items() if is_open}, "nothing open that was not opened, or ended"
        assert 0 <= connections.ready() <= connections.count() == len(found)
        assert {generation for generation, _ in found} <= alive
        assert connections.count() == sum(connections.count(generation) for generation in alive)
    for generation in alive:
        connections.gone(generation)
    assert (connections.count(), connections.ready()) == (0, 0)


def test_a_relay_ends_when_both_are_gone_for_long_enough() -> None:
    life = RelayLife(0.0, relay_idle_s=30.0)
    assert not life.decide(29.9, leases=0, connections=0).end
    assert life.decide(30.0, leases=0, connections=0).end
    assert not life.decide(31.0, leases=1, connections=0).end
    assert not life.decide(100.0, leases=0, connections=1).end
    assert not life.decide(101.0, leases=0, connections=0).end
    assert not life.decide(130.9, leases=0, connections=0).end
    assert life.decide(131.0, leases=0, connections=0).end


def test_disagreement_is_told_once() -> None:
    life = RelayLife(0.0, disagreement_s=10.0)
    told = [life.decide(now, leases=2, connections=0).disagreement for now in (0.0, 9.9, 10.0, 11.0, 50.0)]
    assert told == ["", "", "2 live leases and no connected instance for 10 s: the broker cannot reach their endpoints",
                    "", ""]  # fmt: skip
    assert life.decide(51.0, leases=2, connections=1).disagreement == ""
    assert life.decide(60.0, leases=0, connections=1).disagreement == ""
    assert "1 connected instances and no live lease for 10 s" in life.decide(70.0, leases=0, connections=1).disagreement


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 40), st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_never_ended_while_needed(steps: list[tuple[float, int, int]]) -> None:
    now, needed_at, life = 0.0, 0.0, RelayLife(0.0, relay_idle_s=30.0)
    was_needed = False
    for seconds, leases, connections in steps:
        now += seconds
        if was_needed:
            needed_at = now  # the moment it became idle is the first look that found it so
        was_needed = bool(leases or connections)
        decision = life.decide(now, leases=leases, connections=connections)
        assert decision.end == (not was_needed and now - needed_at >= 30.0)
        if was_needed:
            needed_at = now
