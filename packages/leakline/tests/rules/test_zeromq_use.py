"""Uses of libzmq that end badly: told from wakes of its threads and from eventfds that stay signalled."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leakline.facts import Address, Alive, Descriptor, Frame, Origin, Recorded, Socket
from leakline.rules import diagnose
from leakline.rules.standstill import Standstill

READER = Descriptor(8, "eventfd", "anon_inode:[eventfd]")
IO = Standstill(11, "ZMQbg/IO/0", "io", 0.0, "ep_poll", 42, 60, wakes=60, watched=10.0, moved=40)
REAPER = Standstill(10, "ZMQbg/Reaper", "reaper", 0.0, "ep_poll", 9, 60, wakes=0, watched=10.0)
PEER = Descriptor(
    9, "tcp", "socket:[9]", 9, socket=Socket("tcp", "outgoing", "ESTABLISHED", None, Address("10.0.0.7", 1))
)


def recorded(function: str) -> Recorded:
    frames = (Frame("eventfd", "libc.so.6", 0, "native"), Frame(function, "socket.py", 4, "python"))
    return Recorded("r", "launched", 10.0, True, 1, 0, (Alive("eventfd", Origin(1, frames)),))


def seen(
    scene: Any, *descriptors: Descriptor, threads: tuple[Standstill, ...] = (IO, REAPER), **more: Any
) -> list[str]:
    facts = scene([READER, *descriptors], threads=threads, **more)
    return [f"{finding.severity} {finding.id}" for finding in diagnose(facts)]


def test_an_unread_socket_of_a_process_that_tries_to_reconnect(scene: Any) -> None:
    assert seen(scene, unread={8: 9.5}) == ["note zmq.monitor-unread"]
    assert seen(scene, unread={8: 2.5}) == []
    assert seen(scene, PEER, unread={8: 9.5}) == []
    assert seen(scene, unread={8: 9.5}, threads=(msgspec.structs.replace(IO, wakes=5), REAPER)) == []


def test_a_recorded_monitor_makes_it_likely_also_with_a_peer(scene: Any) -> None:
    assert seen(scene, PEER, unread={8: 9.5}, recorded=recorded("get_monitor_socket")) == ["note zmq.monitor-unread"]
    assert seen(scene, PEER, unread={8: 9.5}, recorded=recorded("socket")) == []


def test_a_socket_that_is_signalled_again_and_again_is_none_that_stays_so(scene: Any) -> None:
    reaper = msgspec.structs.replace(REAPER, wakes=500, moved=50)
    assert seen(scene, unread={8: 9.5}, threads=(IO, reaper)) == ["note zmq.socket-per-request"]
    seldom = msgspec.structs.replace(REAPER, wakes=100, moved=50)
    assert seen(scene, unread={8: 9.5}, threads=(IO, seldom)) == []


def test_once_it_blocks_that_is_the_finding(scene: Any) -> None:
    blocked = msgspec.structs.replace(IO, seconds=5.0, wait_channel="do_poll")
    epoll = Descriptor(5, "epoll", "anon_inode:[eventpoll]")
    assert seen(scene, epoll, unread={8: 9.5}, threads=(blocked, REAPER)) == ["warning zmq.io-thread-blocked"]


@pytest.mark.parametrize(
    ("wakes", "moved", "told"), [(500, 50, True), (310, 50, True), (290, 50, False), (500, 3, False)]
)
def test_a_reaper_that_wakes_all_the_time_closes_sockets(scene: Any, wakes: int, moved: int, told: bool) -> None:
    reaper = msgspec.structs.replace(REAPER, wakes=wakes, moved=moved)
    assert seen(scene, threads=(IO, reaper)) == (["note zmq.socket-per-request"] if told else [])


def asks(per_second: float, function: str = "ask", file: str = "app.py") -> Recorded:
    frames = (Frame("zmq_socket", "libzmq.so.5", 0, "native", "libzmq.so.5"), Frame(function, file, 7, "python"))
    opened = round(20 * per_second)
    origin = Origin(0, frames, headline=1, opened=opened, closed=opened)
    return Recorded("r", "launched", 20.0, True, opened, opened, come_and_go=(origin,))


@pytest.mark.parametrize(("per_second", "told"), [(40.0, True), (11.0, True), (9.0, False)])
def test_a_recording_counts_the_sockets_and_names_the_line(scene: Any, per_second: float, told: bool) -> None:
    reaper = msgspec.structs.replace(REAPER, wakes=round(10 * per_second * 2), moved=10)
    findings = diagnose(scene([READER], threads=(IO, reaper), recorded=asks(per_second)))
    assert [(each.id, each.origins[0].frames[1].line) for each in findings] == (
        [("zmq.socket-per-request", 7)] if told else []
    )


def test_sockets_that_came_and_went_at_the_start_alone_are_no_habit(scene: Any) -> None:
    assert diagnose(scene([READER], threads=(IO, REAPER), recorded=asks(20.0))) == ()


@pytest.mark.parametrize(
    ("connections", "ids"),
    [
        (200, ["zmq.reaper-blocked"]),
        (400, ["zmq.reaper-blocked"]),
        (60, ["zmq.reaper-blocked", "tcp.outgoing-piling-up"]),
        (900, ["zmq.reaper-blocked", "tcp.outgoing-piling-up"]),
    ],
)
def test_connections_of_sockets_that_are_not_reaped_are_told_with_them(
    scene: Any, connections: int, ids: list[str]
) -> None:
    """Those of other code come at a pace of their own."""
    epoll = Descriptor(5, "epoll", "anon_inode:[eventpoll]")
    blocked = msgspec.structs.replace(REAPER, seconds=9.0, wait_channel="do_poll")
    eventfds = [Descriptor(100 + number, "eventfd", "anon_inode:[eventfd]") for number in range(200)]
    sockets = [
        msgspec.structs.replace(PEER, number=1000 + number, target=f"socket:[{number}]", inode=number)
        for number in range(connections)
    ]
    even = [(at / len(kind), each) for kind in (eventfds, sockets) for at, each in enumerate(kind)]
    fresh = [each for _, each in sorted(even, key=lambda pair: pair[0])]
    findings = diagnose(scene([READER, epoll], fresh, limit=20_000, threads=(IO, blocked)))
    assert [finding.id for finding in findings] == ids
    if len(ids) == 1:
        assert findings[0].evidence["connections_kept_beside_them"] == {"tcp": connections}
