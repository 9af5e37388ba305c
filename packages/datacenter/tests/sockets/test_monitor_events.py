"""Monitor frames become events; repeats become one line."""

from __future__ import annotations

import struct

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from datacenter.errors import ProtocolError
from datacenter.sockets.events import DEBUG_MASK, NAMES, USUAL_MASK, Folder, MonitorEvent, parse


def event(name: str = "CONNECT_RETRIED", at: float = 0.0, endpoint: str = "tcp://127.0.0.1:7") -> MonitorEvent:
    return MonitorEvent(name, 100, endpoint, "client", 1, at)


def test_names_are_those_of_libzmq() -> None:
    known = {int(item): item.name for item in zmq.Event if item.name and not item.name.startswith(("ALL", "PIPES"))}
    assert {number: known[number] for number in NAMES} == NAMES


def test_masks_leave_out_what_floods_and_what_blocks_the_reaper() -> None:
    assert not (DEBUG_MASK | USUAL_MASK) & zmq.EVENT_MONITOR_STOPPED
    for flood in (zmq.EVENT_CONNECT_DELAYED, zmq.EVENT_CONNECT_RETRIED, zmq.EVENT_CLOSED, zmq.EVENT_ACCEPT_FAILED):
        assert DEBUG_MASK & flood
        assert not USUAL_MASK & flood
    for needed in (zmq.EVENT_CONNECTED, zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED):
        assert USUAL_MASK & needed


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CONNECTED", 9, "descriptor 9"),
        ("ACCEPT_FAILED", 24, "EMFILE"),
        ("CONNECT_RETRIED", 100, "after 100 ms"),
        ("HANDSHAKE_FAILED_PROTOCOL", 0x10000000, "code 0x10000000"),
        ("HANDSHAKE_SUCCEEDED", 0, ""),
    ],
)
def test_the_value_is_a_plain_number_with_a_meaning(name: str, value: int, words: str) -> None:
    number = next(number for number, known in NAMES.items() if known == name)
    parsed = parse(struct.pack("=HI", number, value), b"tcp://[::1]:7", "owner", 3, 1.5)
    assert parsed == MonitorEvent(name, value, "tcp://[::1]:7", "owner", 3, 1.5)
    assert type(parsed.value) is int
    assert parsed.explain() == words


def test_an_event_of_a_later_libzmq_keeps_its_number() -> None:
    assert parse(struct.pack("=HI", 0x8000, 1), b"", "owner", 1, 0.0).name == "EVENT_0x8000"


def test_frames_of_another_shape_are_refused() -> None:
    with pytest.raises(ProtocolError, match="8 bytes instead of 6"):
        parse(b"12345678", b"", "owner", 1, 0.0)


def test_repeats_are_folded() -> None:
    folder = Folder()
    lines = [line for n in range(313) for line in folder.add(event(at=n / 313))]
    assert lines == ["CONNECT_RETRIED (after 100 ms) tcp://127.0.0.1:7 [client]"]
    assert folder.due(1.0) == ["CONNECT_RETRIED ×312 in 1 s (after 100 ms) tcp://127.0.0.1:7 [client]"]


def test_other_endpoints_are_other_rows() -> None:
    folder = Folder()
    assert len([line for n in range(3) for line in folder.add(event(endpoint=f"tcp://127.0.0.1:{n}"))]) == 3


def test_a_row_that_went_quiet_begins_anew() -> None:
    folder = Folder()
    assert len(folder.add(event(at=0.0))) == 1
    assert folder.next_due() == 1.0
    assert folder.due(1.0) == []
    assert folder.next_due() is None
    assert len(folder.add(event(at=2.0))) == 1


@given(st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 0.4)), max_size=300))
def test_no_event_is_lost_and_memory_is_bounded(steps: list[tuple[int, float]]) -> None:
    folder, now, lines = Folder(), 0.0, []
    for port, pause in steps:
        now += pause
        lines += folder.add(event(at=now, endpoint=f"tcp://127.0.0.1:{port}"))
    lines += folder.flush(now)
    told = sum(int(line.split("×")[1].split()[0]) if "×" in line else 1 for line in lines)
    assert told == len(steps)


def test_many_rows_are_told_rather_than_kept() -> None:
    folder = Folder()
    for port in range(Folder.MOST * 2):
        folder.add(event(endpoint=f"tcp://127.0.0.1:{port}"))
        folder.add(event(endpoint=f"tcp://127.0.0.1:{port}"))
    assert len(folder.flush(0.5)) <= Folder.MOST
