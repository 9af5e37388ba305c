"""How calls end that no instance answers: lost with their instance, or expired while they waited. Each exactly once."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections import Counter

import pytest
import zmq
from relay_peers import (
    Connect,
    call_frame,
    echo_service,
    expect_replies,
    receive_frame,
    receive_reply,
    shake_hands,
    wait_until,
)

from datacenter import wire
from datacenter.broker.relay import Relay, RelayOptions
from datacenter.broker.relay_loop import RelayCounts
from datacenter.calls import error_of
from datacenter.errors import DeadlineError, LostError
from datacenter.sockets import OwnedSocket, SocketContext

pytestmark = pytest.mark.usefixtures("ledger_equals_proc")

#: a call's time in these tests, and how much later than it the relay's answer may be on a busy machine
TIMEOUT_MS, LATE_S = 200, 2.0


def nothing(_: int) -> bytes:
    return b""


def counts(relay: Relay) -> RelayCounts:
    return relay.statistics().counts


def expect_counts(relay: Relay, **wanted: int) -> None:
    """Waits for them: a message is counted just after it was sent."""
    wait_until(lambda: wanted.items() <= dataclasses.asdict(counts(relay)).items(), f"{wanted}, of {counts(relay)}")


def take(instance: OwnedSocket, most: int) -> list[tuple[bytes, wire.Call]]:
    """So many calls at an instance, and whom to answer."""
    found = []
    for _ in range(most):
        who, frame = receive_frame(instance)
        found.append((who, wire.decode_call(frame)))
    return found


def reply_to(instance: OwnedSocket, who: bytes, number: int) -> None:
    instance.raw.send(who, zmq.SNDMORE)
    instance.raw.send(wire.encode(wire.OutgoingResult(number, b"")))


def expect_failures(client: OwnedSocket, numbers: set[int], kind: type) -> list[wire.Failure]:
    """One failure for each, and nothing else."""
    found = []
    for _ in range(len(numbers)):
        number, reply = receive_reply(client)
        assert isinstance(reply, wire.Failure)
        assert type(error_of(reply)) is kind
        numbers = numbers - {number}
        found.append(reply)
    assert not numbers
    return found


def expect_silence(client: OwnedSocket, relay: Relay) -> None:
    """Nothing is on its way to the client: what it asks for now comes next."""
    client.raw.send(call_frame(999))
    expect_replies(client, {999}, nothing)


# --- lost


def test_calls_of_an_instance_that_dies_are_lost_and_its_last_replies_are_not(
    relay: Relay, peers: SocketContext, connect: Connect
) -> None:
    client = connect()
    with peers.socket(zmq.ROUTER, owner="dying", linger_ms=5000) as dying:
        address = dying.bind("tcp://127.0.0.1:*")
        relay.set_instances([address])
        for number in range(500):
            client.raw.send(call_frame(number))
        calls = take(dying, 500)
        for who, call in calls[:200]:
            reply_to(dying, who, call.id)
    ended = Counter(reply.code if isinstance(reply, wire.Failure) else "result"
                    for reply in (receive_reply(client)[1] for _ in range(500)))  # fmt: skip
    assert ended == {"result": 200, "lost": 300}
    with echo_service(peers) as heir:
        relay.set_instances([heir.endpoint])
        expect_silence(client, relay)
    expect_counts(relay, calls=501, replies=201, lost=300, unanswered=0)


def test_lost_says_which_instance_of_which_service(relay: Relay, peers: SocketContext, connect: Connect) -> None:
    client = connect()
    with peers.socket(zmq.ROUTER, owner="dying") as dying:
        address = dying.bind("tcp://127.0.0.1:*")
        relay.set_instances([address])
        client.raw.send(call_frame(7))
        take(dying, 1)
    (failure,) = expect_failures(client, {7}, LostError)
    assert address in failure.message
    assert "echo" in failure.message
    assert "idempotent" in failure.hint


def test_an_instance_that_ends_in_the_middle_of_a_reply(relay: Relay, connect: Connect) -> None:
    client = connect()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        relay.set_instances([f"tcp://127.0.0.1:{listener.getsockname()[1]}"])
        with listener.accept()[0] as peer:
            shake_hands(peer, b"ROUTER")
            client.raw.send(call_frame(3))
            wait_until(lambda: counts(relay).calls == 1, "it is handed over")
            peer.sendall(b"\x02" + (1_000_000).to_bytes(8, "big") + b"\x93\x01\xcf\x80" + bytes(5000))
        expect_failures(client, {3}, LostError)
        relay.set_instances([])
        wait_until(lambda: not relay.statistics().instances, "it is let go of")


def test_what_an_instance_has_not_answered_by_the_end_of_its_drain_is_lost(
    context: SocketContext, peers: SocketContext, options: RelayOptions
) -> None:
    hasty = dataclasses.replace(options, drain_s=0.2)
    with (
        Relay("echo", context, options=hasty) as relay,
        peers.socket(zmq.DEALER, owner="client") as client,
        echo_service(peers) as slow,
        echo_service(peers) as other,
    ):
        relay.set_instances([slow.endpoint])
        client.connect(relay.endpoint)
        wait_until(lambda: relay.connected() == 1, "it is connected")
        slow.hold()
        for number in range(20):
            client.raw.send(call_frame(number))
        wait_until(lambda: counts(relay).calls == 20, "all are handed over")
        began = time.monotonic()
        relay.set_instances([other.endpoint])
        expect_failures(client, set(range(20)), LostError)
        assert time.monotonic() - began >= 0.2
        slow.go_on()
        wait_until(lambda: slow.calls == 20, "it executes them all the same")
        expect_silence(client, relay)
        expect_counts(relay, calls=21, replies=1, lost=20, unknown_replies=0)


# --- expired


def test_a_client_never_waits_in_silence_where_there_is_no_instance(relay: Relay, connect: Connect) -> None:
    """Each by its own deadline: those behind a patient one, and more than the relay keeps in line."""
    client = connect()
    client.raw.send(call_frame(0))
    began = time.monotonic()
    for number in range(1, 1500):
        client.raw.send(call_frame(number, timeout_ms=TIMEOUT_MS * (1 + number % 2)))
    ends: dict[int, float] = {}
    for _ in range(1, 1500):
        number, reply = receive_reply(client)
        assert isinstance(reply, wire.Failure)
        error = error_of(reply)
        assert isinstance(error, DeadlineError)
        assert not error.sent
        assert "echo" in error.message
        ends[number] = time.monotonic() - began
    assert ends.keys() == set(range(1, 1500))
    assert all(end >= TIMEOUT_MS * (1 + number % 2) / 1000 - 0.01 for number, end in ends.items()), "none too early"
    assert max(ends.values()) < 2 * 2 * TIMEOUT_MS / 1000 + LATE_S
    expect_counts(relay, expired=1499, calls=0)


def test_what_expired_is_not_executed_and_the_patient_are_served(
    relay: Relay, peers: SocketContext, connect: Connect
) -> None:
    client = connect()
    for number in range(100):
        client.raw.send(call_frame(number, timeout_ms=60_000 if number % 2 else 30))
    expect_failures(client, set(range(0, 100, 2)), DeadlineError)
    with echo_service(peers) as late:
        relay.set_instances([late.endpoint])
        expect_replies(client, set(range(1, 100, 2)), nothing)
        assert late.calls == 50


def test_calls_beyond_what_may_be_in_flight_wait_for_room_until_their_deadline(
    context: SocketContext, peers: SocketContext, options: RelayOptions
) -> None:
    few = dataclasses.replace(options, max_in_flight=5)
    with (
        Relay("echo", context, options=few) as relay,
        peers.socket(zmq.DEALER, owner="client") as client,
        peers.socket(zmq.ROUTER, owner="instance") as instance,
    ):
        relay.set_instances([instance.bind("tcp://127.0.0.1:*")])
        client.connect(relay.endpoint)
        for number in range(8):
            client.raw.send(call_frame(number, timeout_ms=60_000 if number < 6 else TIMEOUT_MS))
        calls = take(instance, 5)
        expect_failures(client, {6, 7}, DeadlineError)
        expect_counts(relay, calls=5, expired=2)
        for who, call in calls:
            reply_to(instance, who, call.id)
        for who, call in take(instance, 1):
            reply_to(instance, who, call.id)
        expect_replies(client, set(range(6)), nothing)


def test_calls_that_are_never_answered_are_forgotten_and_hold_up_nothing(
    context: SocketContext, peers: SocketContext, options: RelayOptions
) -> None:
    strict = dataclasses.replace(options, max_in_flight=5, late_reply_s=0.05)
    with (
        Relay("echo", context, options=strict) as relay,
        peers.socket(zmq.DEALER, owner="client") as client,
        peers.socket(zmq.ROUTER, owner="instance") as instance,
    ):
        endpoint = instance.bind("tcp://127.0.0.1:*")
        relay.set_instances([endpoint])
        client.connect(relay.endpoint)
        for number in range(5):
            client.raw.send(call_frame(number, timeout_ms=100))
        deaf = take(instance, 5)
        wait_until(lambda: counts(relay).unanswered == 5, "they are forgotten")
        for who, call in deaf:
            reply_to(instance, who, call.id)
        wait_until(lambda: counts(relay).unknown_replies == 5, "their late replies are dropped")
        for number in range(10, 15):
            client.raw.send(call_frame(number, timeout_ms=100))
        take(instance, 5)
        relay.set_instances([])
        wait_until(lambda: not relay.statistics().instances, "nothing is left to wait for in its drain", 4.0)
        expect_counts(relay, unanswered=10, lost=0, replies=0, unknown_replies=5)
        assert not client.raw.poll(0)


# --- who may answer what


def test_an_instance_cannot_speak_to_a_client_that_did_not_ask_it(
    relay: Relay, peers: SocketContext, connect: Connect
) -> None:
    victim, caller = connect(), connect()
    with (
        peers.socket(zmq.ROUTER, owner="honest") as honest,
        peers.socket(zmq.ROUTER, owner="liar") as liar,
    ):
        relay.set_instances([honest.bind("tcp://127.0.0.1:*")])
        victim.raw.send(call_frame(1))
        ((asked, question),) = take(honest, 1)
        relay.set_instances([honest.endpoint, liar.bind("tcp://127.0.0.1:*")])
        wait_until(lambda: relay.connected() == 2, "both are connected")
        caller.raw.send(call_frame(1))
        ((who, call),) = take(liar, 1)  # the other one has a call in flight
        for number in (question.id, question.id + 1, call.id + 1, 1 << 63, (1 << 64) - 1):
            reply_to(liar, who, number)
        wait_until(lambda: counts(relay).unknown_replies == 5, "they are dropped")
        reply_to(liar, who, call.id)
        reply_to(liar, who, call.id)
        expect_replies(caller, {1}, nothing)
        wait_until(lambda: counts(relay).unknown_replies == 6, "the second one is dropped")
        assert not victim.raw.poll(0)
        reply_to(honest, asked, question.id)
        expect_replies(victim, {1}, nothing)


def test_a_number_used_twice_by_a_client_harms_nobody(relay: Relay, peers: SocketContext, connect: Connect) -> None:
    with echo_service(peers) as echo:
        relay.set_instances([echo.endpoint])
        wait_until(lambda: relay.connected() == 1, "it is connected")
        echo.hold()
        twice, other = connect(), connect()
        for _ in range(20):
            twice.raw.send(call_frame(1))
        other.raw.send(call_frame(1))
        wait_until(lambda: counts(relay).calls + counts(relay).duplicate_calls == 21, "all are read")
        echo.go_on()
        expect_replies(twice, {1}, nothing)
        expect_replies(other, {1}, nothing)
        expect_counts(relay, calls=2, duplicate_calls=19, replies=2)
        assert sum(each.in_flight for each in relay.statistics().instances) == 0
        expect_silence(twice, relay)
