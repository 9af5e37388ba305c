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


@pytest.mark.parametrize(("wakes", "moved", "told"), [(500, 50, True), (290, 50, False), (500, 3, False)])
def test_a_reaper_that_wakes_all_the_time_closes_sockets(scene: Any, wakes: int, moved: int, told: bool) -> None:
    reaper = msgspec.structs.replace(REAPER, wakes=wakes, moved=moved)
    assert seen(scene, threads=(IO, reaper)) == (["note zmq.socket-per-request"] if told else [])
