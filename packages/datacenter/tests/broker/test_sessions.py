"""The broker's sessions: pure, messages in and messages out."""

from __future__ import annotations

import time

from datacenter import wire
from datacenter.broker.sessions import RelayOrder, Sessions
from datacenter.errors import RegistryFullError
from datacenter.registry.state import Registry

WELCOME = wire.Welcome(wire.PROTOCOL, "0.1", "b", 1.0, 3, 3.0, 1024, 10)
HELLO = wire.Hello(wire.PROTOCOL, "0.1", 1, "host", "process")


def make(max_sessions: int = 10) -> Sessions:
    registry = Registry(lease_s=3.0, grace_s=0.0, started_at=0.0, first_epoch=0)
    return Sessions(registry, WELCOME, max_sessions=max_sessions)


def register(number: int = 1, name: str = "a") -> wire.Register:
    return wire.Register(7, name, "rpc", wire.Instance(f"i{number}", "tcp://127.0.0.1:1"))


def test_a_stranger_is_told_to_introduce_himself() -> None:
    sessions = make()
    assert sessions.received(0.0, b"x", wire.Heartbeat()) == [(b"x", wire.Reintroduce())]
    assert sessions.received(0.0, b"x", wire.Bye()) == []
    assert sessions.received(0.0, b"x", HELLO) == [(b"x", WELCOME)]
    assert sessions.received(0.0, b"x", wire.Heartbeat()) == []


def test_any_message_renews_the_leases_of_its_session() -> None:
    sessions = make()
    sessions.received(0.0, b"x", HELLO)
    sessions.received(0.0, b"x", register())
    sessions.received(2.0, b"x", wire.ListServices(1))
    sessions.tick(4.9)
    assert sessions.registry.resolve("a", "rpc").state == "live"
    sessions.tick(5.0)
    assert sessions.registry.resolve("a", "rpc").state == "away"


def test_the_leases_of_a_session_that_is_gone_run_from_its_last_message() -> None:
    sessions = make()
    sessions.received(0.0, b"x", HELLO)
    sessions.received(0.0, b"x", register())
    sessions.received(2.0, b"x", wire.Heartbeat())
    sessions.gone(b"x")
    sessions.received(2.5, b"x", HELLO)  # it is back, and has not registered yet
    sessions.tick(4.9)
    assert sessions.registry.resolve("a", "rpc").state == "live"
    sessions.tick(5.0)
    assert sessions.registry.resolve("a", "rpc").state == "away"


def test_a_message_costs_the_same_however_many_instances_its_session_has() -> None:
    sessions = make()
    sessions.received(0.0, b"x", HELLO)
    began = time.process_time()
    for number in range(5_000):
        sessions.received(0.0, b"x", register(number, f"name-{number}"))
    for _ in range(5_000):
        sessions.received(2.0, b"x", wire.Heartbeat())
    sessions.tick(4.9)
    assert sessions.registry.statistics()["instances"] == 5_000
    assert time.process_time() - began < 5  # 0.1 s; one that renews each lease takes 20 s


def test_a_silent_session_is_forgotten_with_its_watches() -> None:
    sessions = make()
    sessions.received(0.0, b"x", HELLO)
    sessions.received(0.0, b"x", wire.Resolve(1, "a", "rpc"))
    sessions.tick(3.1)
    assert sessions.processes == {}
    assert sessions.registry.statistics()["watchers"] == 0
    assert sessions.received(3.2, b"x", wire.Heartbeat()) == [(b"x", wire.Reintroduce())]


def test_watchers_hear_of_each_change() -> None:
    sessions = make()
    for who in (b"client", b"service"):
        sessions.received(0.0, who, HELLO)
    sessions.tick(0.0)
    ((_, answer),) = sessions.received(0.0, b"client", wire.Resolve(1, "a", "rpc"))
    assert isinstance(answer, wire.Resolved)
    assert answer.resolution.state == "unknown"
    answers = sessions.received(0.0, b"service", register())
    changed = [message for who, message in answers if who == b"client"]
    assert isinstance(changed[0], wire.Changed)
    assert changed[0].resolution.state == "live"
    answers = sessions.received(0.0, b"service", wire.Bye())
    assert [message.resolution.state for _, message in answers if isinstance(message, wire.Changed)] == ["away"]


def test_heartbeats_go_to_those_who_heard_nothing_else() -> None:
    sessions = make()
    sessions.received(0.0, b"x", HELLO)
    sessions.received(0.5, b"x", wire.ListServices(1))
    assert sessions.tick(1.0) == []
    assert sessions.tick(1.45) == [(b"x", wire.BrokerHeartbeat())]
    assert sessions.tick(1.5) == []


def test_the_last_owner_of_an_instance_decides_about_it() -> None:
    sessions = make()
    for who in (b"old", b"new"):
        sessions.received(0.0, who, HELLO)
        sessions.received(0.0, who, register())
    sessions.received(0.0, b"old", wire.Bye())
    assert sessions.registry.resolve("a", "rpc").state == "live"
    sessions.received(0.0, b"new", wire.Bye())
    assert sessions.registry.resolve("a", "rpc").state == "away"


def test_a_refused_request_is_answered_with_its_reason() -> None:
    sessions = make()
    sessions.received(0.0, b"x", HELLO)
    sessions.received(0.0, b"x", register())
    ((_, refused),) = sessions.received(0.0, b"x", wire.Resolve(9, "a", "topic"))
    assert isinstance(refused, wire.Refused)
    assert (refused.request, refused.code) == (9, "wrong-type")


def test_an_endpoint_that_would_have_to_be_looked_up_is_refused() -> None:
    sessions = make()
    sessions.received(0.0, b"x", HELLO)
    for endpoint in ("tcp://localhost:7700", "tcp://no.such.host.invalid:1", "", "tcp://*:7700", "inproc://a"):
        message = wire.Register(9, "a", "rpc", wire.Instance("i", endpoint))
        ((_, refused),) = sessions.received(0.0, b"x", message)
        assert isinstance(refused, wire.Refused)
        assert (refused.request, refused.code) == (9, "bad-address")
        assert refused.hint
    assert sessions.registry.statistics()["instances"] == 0


def test_no_more_sessions_than_stated() -> None:
    sessions = make(max_sessions=1)
    sessions.received(0.0, b"x", HELLO)
    ((_, refused),) = sessions.received(0.0, b"y", HELLO)
    assert isinstance(refused, wire.Refused)
    assert "1 sessions" in refused.message


def test_another_protocol_is_told_ours_and_gets_no_session() -> None:
    sessions = make()
    other = wire.Hello(wire.PROTOCOL + 1, "9", 1, "host", "process")
    assert sessions.received(0.0, b"x", other) == [(b"x", WELCOME)]
    assert sessions.processes == {}


def ask_for_relay(sessions: Sessions, who: bytes, name: str = "a") -> None:
    sessions.received(0.0, who, HELLO)
    sessions.received(0.0, who, wire.Resolve(1, name, "rpc", relay=True))


def test_a_relay_is_ordered_when_it_is_wanted_and_an_instance_lives() -> None:
    sessions = make()
    ask_for_relay(sessions, b"client")
    assert sessions.relay_orders() == []
    sessions.received(0.0, b"service", HELLO)
    sessions.received(0.0, b"service", register())
    assert sessions.relay_orders() == [RelayOrder("a", "rpc", ("tcp://127.0.0.1:1",))]
    assert sessions.relay_orders() == []


def test_a_relay_is_told_of_its_instances_whoever_wants_it() -> None:
    sessions = make()
    ask_for_relay(sessions, b"client")
    sessions.received(0.0, b"service", HELLO)
    sessions.received(0.0, b"service", register())
    answers = sessions.relay_made("a", "tcp://127.0.0.1:9")
    ((who, changed),) = answers
    assert (who, isinstance(changed, wire.Changed) and changed.resolution.relay) == (b"client", "tcp://127.0.0.1:9")
    sessions.received(0.0, b"client", wire.Bye())
    sessions.relay_orders()
    sessions.received(0.0, b"service", wire.Bye())
    assert sessions.relay_orders() == [RelayOrder("a", "rpc", ())]
    assert sessions.relay_made("a", "") == []  # nobody watches
    sessions.received(0.0, b"service", HELLO)
    sessions.received(0.0, b"service", register())
    assert sessions.relay_orders() == []  # nobody wants it any more


def test_whoever_asked_for_a_relay_hears_why_there_is_none() -> None:
    sessions = make()
    ask_for_relay(sessions, b"client")
    ask_for_relay(sessions, b"gone")
    sessions.tick(2.0)
    sessions.received(2.0, b"client", wire.Heartbeat())
    sessions.tick(4.0)  # the other one was silent for too long
    ((who, refused),) = sessions.relay_refused("a", "rpc", RegistryFullError("no room", "Make some."))
    assert who == b"client"
    assert refused == wire.NoRelay("a", "rpc", "there is no relay of a: no room", "Make some.")


def drained(sessions: Sessions, target: str) -> list[tuple[bytes, wire.FromBroker]]:
    sessions.received(0.0, b"asker", HELLO)
    return sessions.received(0.0, b"asker", wire.Drain(9, target))


def test_a_drain_is_passed_on_to_each_owner_and_its_asker_is_told_who_they_are() -> None:
    sessions = make()
    for number, who in ((1, b"x"), (2, b"y"), (3, b"z")):
        sessions.received(0.0, who, HELLO)
        sessions.received(0.0, who, register(number, "b" if number == 3 else "a"))
    *told, (asker, answer) = drained(sessions, "a")
    assert told == [(b"x", wire.DrainRequested("i1")), (b"y", wire.DrainRequested("i2"))]
    assert asker == b"asker"
    assert isinstance(answer, wire.Draining)
    assert (answer.request, answer.service.name) == (9, "a")
    assert [instance.id for instance in answer.service.instances] == ["i1", "i2"]
    assert sessions.registry.resolve("a", "rpc").state == "live"  # they leave by themselves


def test_a_drain_of_one_instance_leaves_the_others_alone() -> None:
    sessions = make()
    for number in (1, 2):
        sessions.received(0.0, b"x", HELLO)
        sessions.received(0.0, b"x", register(number))
    told, (_, answer) = drained(sessions, "i2")
    assert told == (b"x", wire.DrainRequested("i2"))
    assert isinstance(answer, wire.Draining)
    assert [instance.id for instance in answer.service.instances] == ["i2"]


def test_a_drain_of_what_there_is_not() -> None:
    sessions = make()
    ((_, refused),) = drained(sessions, "a")
    assert isinstance(refused, wire.Refused)
    assert (refused.request, refused.code) == (9, "no-such-service")
    sessions.received(0.0, b"x", HELLO)
    sessions.received(0.0, b"x", register())
    sessions.received(0.0, b"x", wire.Bye())
    ((_, nobody),) = drained(sessions, "a")
    assert isinstance(nobody, wire.Draining)
    assert nobody.service.instances == ()


def test_a_drain_while_the_broker_settles_says_that_it_may_be_too_early() -> None:
    registry = Registry(lease_s=3.0, grace_s=10.0, started_at=0.0, first_epoch=0)
    ((_, refused),) = drained(Sessions(registry, WELCOME, max_sessions=10), "a")
    assert isinstance(refused, wire.Refused)
    assert "has just started" in refused.hint
