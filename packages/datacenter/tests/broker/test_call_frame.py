"""What is a call to a relay: the parsers in C and in Python say the same of any bytes, and what the wire says."""

from __future__ import annotations

import ctypes
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datacenter import wire
from datacenter.broker import relay_answers
from datacenter.broker.call_frame import ID_BIT, LABEL, call_id, frame_id, labelled, routing_id_of, with_id
from datacenter.broker.relay_loop import LIBRARY
from datacenter.calls import error_of
from datacenter.errors import DeadlineError, LostError

_library = ctypes.PyDLL(str(LIBRARY))
_library.frame_id.argtypes, _library.frame_id.restype = [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_uint64
_library.call_id.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_uint64)]
_library.call_id.restype = ctypes.c_uint64


def native_call_id(frame: bytes) -> tuple[int, int] | None:
    timeout_ms = ctypes.c_uint64()
    number = int(_library.call_id(frame, len(frame), timeout_ms))
    return (number, timeout_ms.value) if number else None


def frame_of(number: int, service: str, method: str, timeout_ms: int, argument: bytes) -> bytes:
    return wire.encode(wire.OutgoingCall(number, service, method, timeout_ms, (argument,), {}))


NUMBERS = st.one_of(st.integers(ID_BIT, ID_BIT + (1 << 31) - 1), st.integers(0, (1 << 64) - 1))
NAMES = st.one_of(st.text("abc", max_size=40), st.text("é-", max_size=90))
CALLS = st.builds(frame_of, NUMBERS, NAMES, NAMES, st.integers(0, (1 << 64) - 1), st.binary(max_size=20))


@settings(deadline=None, max_examples=300)
@given(NUMBERS, NAMES, NAMES, st.integers(0, (1 << 64) - 1), st.binary(max_size=20))
def test_every_call_of_the_wire_is_understood(
    number: int, service: str, method: str, timeout_ms: int, argument: bytes
) -> None:
    frame = frame_of(number, service, method, timeout_ms, argument)
    relayable = number >= ID_BIT and not number & LABEL and max(len(n.encode()) for n in (service, method)) <= 128
    assert native_call_id(frame) == call_id(frame) == ((number, timeout_ms) if relayable else None)


@settings(deadline=None, max_examples=500)
@given(CALLS, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=3), st.integers(0, 80))
def test_both_parsers_agree_on_any_bytes(frame: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    changed = bytearray(frame)
    for at, value in changes:
        if at < len(changed):
            changed[at] = value
    for candidate in (bytes(changed), bytes(changed[:cut])):
        assert native_call_id(candidate) == call_id(candidate)
        assert int(_library.frame_id(candidate, len(candidate))) == (frame_id(candidate) or 0)


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b"")
def test_both_parsers_agree_on_noise(frame: bytes) -> None:
    assert native_call_id(frame) == call_id(frame)


GOOD = frame_of(ID_BIT + 5, "echo", "back", 70_000, b"x")


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(GOOD[:26], id="without arguments"),
        pytest.param(b"\x95" + GOOD[1:], id="five fields"),
        pytest.param(b"\x87" + GOOD[1:], id="a map"),
        pytest.param(b"\xdc\x00\x07" + GOOD[1:], id="an array of 16 bits"),
        pytest.param(GOOD[:1] + b"\x02" + GOOD[2:], id="the tag of a failure"),
        pytest.param(GOOD[:2] + b"\xd3" + GOOD[3:], id="a signed id"),
        pytest.param(with_id(GOOD, 5), id="without bit 63"),
        pytest.param(with_id(GOOD, ID_BIT | 1 << 31), id="a label of its own"),
        pytest.param(GOOD[:11] + b"\xc0" + GOOD[16:], id="nil for a service"),
        pytest.param(GOOD[:11] + b"\xda\x00\x04echo" + GOOD[16:], id="a name of 16 bits"),
        pytest.param(GOOD[:11] + b"\xd9\x81" + b"x" * 129 + GOOD[16:], id="a name of 129 bytes"),
        pytest.param(GOOD[:11] + b"\xd9\x80" + b"x" * 20, id="a name that ends beyond the frame"),
        pytest.param(GOOD[:21] + b"\xff" + GOOD[26:], id="a negative timeout"),
        pytest.param(GOOD[:21] + b"\xcb" + struct.pack(">d", 1.0) + GOOD[26:], id="a timeout with a point"),
        pytest.param(GOOD[:21] + b"\xcf" + bytes(4), id="a timeout that ends beyond the frame"),
    ],
)
def test_no_call(frame: bytes) -> None:
    assert call_id(GOOD) == native_call_id(GOOD) == (ID_BIT + 5, 70_000)
    assert call_id(frame) is None
    assert native_call_id(frame) is None


def test_labels_return_to_their_clients() -> None:
    for client in (b"\0\0\0\0\1", b"\0\xff\xff\xff\xff", b"\0\x80\0\0\0"):
        number = labelled(ID_BIT + 5, client)
        assert number is not None
        assert routing_id_of(number) == client
        assert number & ~LABEL == ID_BIT + 5
    assert labelled(ID_BIT, b"own") is None
    assert labelled(ID_BIT, b"\1\0\0\0\0") is None


def test_answers_of_the_relay_are_failures_of_the_wire() -> None:
    for kind, tail in (
        (LostError, relay_answers.lost("echo", "tcp://127.0.0.1:7")),
        (DeadlineError, relay_answers.expired("echo")),
    ):
        reply = wire.decode_reply(b"\x96\x02\xcf" + (ID_BIT + 9).to_bytes(8, "big") + tail)
        assert isinstance(reply, wire.Failure)
        assert reply.id == ID_BIT + 9
        assert type(error_of(reply)) is kind
