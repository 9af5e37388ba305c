"""wire: whatever arrives, it is a message or a ProtocolError; what is sent arrives as it was."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacenter import wire
from datacenter.errors import NotServableError, ProtocolError

DECODERS = [wire.decode_to_broker, wire.decode_from_broker, wire.decode_call, wire.decode_reply]
TO_BROKER = [
    wire.Hello(1, "0.1", 7, "host", "process"),
    wire.Heartbeat(),
    wire.Bye(),
    wire.Register(1, "a", "rpc", wire.Instance("a-1", "tcp://127.0.0.1:1", (wire.Method("m", "()", True),))),
    wire.Unregister(2, "a-1"),
    wire.Resolve(3, "a", "topic", watch=False),
    wire.Unwatch("a"),
    wire.ListServices(4),
    wire.Drain(5, "a"),
]
RESOLUTION = wire.Resolution("a", "rpc", "live", 9, (wire.Instance("a-1", "tcp://127.0.0.1:1", epoch=9),))
FROM_BROKER = [
    wire.Welcome(1, "0.1", "b", 1.0, 3, 3.0, 1024, 10),
    wire.BrokerHeartbeat(),
    wire.Reintroduce(),
    wire.Registered(1, 5),
    wire.Unregistered(2),
    wire.Resolved(3, RESOLUTION),
    wire.Changed(RESOLUTION),
    wire.Listing(4, (RESOLUTION,)),
    wire.Refused(5, "wrong-type", "text", "hint"),
    wire.Shutdown(),
    wire.NoRelay("a", "rpc", "text", "hint"),
    wire.DrainRequested("a-1"),
    wire.Draining(6, RESOLUTION),
]


@pytest.mark.parametrize("message", TO_BROKER, ids=lambda m: type(m).__name__)
def test_messages_to_the_broker_arrive_as_sent(message: wire.ToBroker) -> None:
    assert wire.decode_to_broker(wire.encode(message)) == message


@pytest.mark.parametrize("message", FROM_BROKER, ids=lambda m: type(m).__name__)
def test_messages_from_the_broker_arrive_as_sent(message: wire.FromBroker) -> None:
    assert wire.decode_from_broker(wire.encode(message)) == message


def test_every_message_is_among_those_tested() -> None:
    assert {type(m) for m in TO_BROKER} == set(wire.ToBroker.__args__)  # type: ignore[attr-defined]
    assert {type(m) for m in FROM_BROKER} == set(wire.FromBroker.__args__)  # type: ignore[attr-defined]


def test_a_call_carries_its_arguments_and_a_result_its_value() -> None:
    frame = wire.encode(wire.OutgoingCall(5, "a", "m", 100, (1, b"x", {"k": [2.5]}), {"n": None}))
    call = wire.decode_call(frame)
    assert (call.id, call.service, call.method, call.timeout_ms) == (5, "a", "m", 100)
    assert msgspec.msgpack.decode(call.args) == [1, b"x", {"k": [2.5]}]
    assert msgspec.msgpack.decode(call.keywords) == {"n": None}
    reply = wire.decode_reply(wire.encode(wire.OutgoingResult(5, {"x": 1})))
    assert isinstance(reply, wire.Result)
    assert msgspec.msgpack.decode(reply.body) == {"x": 1}
    failure = wire.Failure(5, "remote", "text", "hint", "KeyError")
    assert wire.decode_reply(wire.encode(failure)) == failure


def test_a_call_without_keywords_says_so_in_the_bytes_that_services_compare_with() -> None:
    call = wire.decode_call(wire.encode(wire.OutgoingCall(1, "a", "m", 1, (), {})))
    assert call.keywords == wire.NO_KEYWORDS


@given(st.binary(max_size=200))
def test_random_frames_are_refused_by_type(frame: bytes) -> None:
    for decode in DECODERS:
        with contextlib.suppress(ProtocolError):
            decode(frame)


@given(st.sampled_from(TO_BROKER), st.data())
def test_cut_frames_are_refused_by_type(message: wire.ToBroker, data: st.DataObject) -> None:
    frame = wire.encode(message)
    cut = frame[: data.draw(st.integers(0, len(frame) - 1))]
    with pytest.raises(ProtocolError):
        wire.decode_to_broker(cut)


def test_deep_nesting_is_refused_not_a_crash() -> None:
    for decode in DECODERS:
        with pytest.raises(ProtocolError):
            decode(b"\x91" * 100_000 + b"\x00")


@pytest.mark.parametrize("target", ["", "a", ".m", "a.", "a.b.c", "ä.m", "a b.m", None, 5])
def test_a_target_that_names_no_method_says_how_to_write_one(target: object) -> None:
    with pytest.raises(NotServableError, match=r"SERVICE\.METHOD|letters, digits"):
        wire.split_target(target)  # type: ignore[arg-type]
