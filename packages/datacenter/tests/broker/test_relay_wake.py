"""A call that comes after an instance was known to be gone is not handed to it, however close they are. Both loops."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from relay_peers import call_frame, wait_until

from datacenter.broker import relay_loop, relay_loop_python
from datacenter.broker.relay_loop import LoopLimits, Outcome
from datacenter.sockets import SocketContext

pytestmark = pytest.mark.usefixtures("ledger_equals_proc")


class _Item(ctypes.Structure):
    _fields_ = [("socket", ctypes.c_void_p), ("fd", ctypes.c_int), ("events", ctypes.c_short), ("got", ctypes.c_short)]


_Poll = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Item), ctypes.c_int, ctypes.c_long)


@pytest.fixture(params=["native", "python"])
def after_poll(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has something happen at the very moment between libzmq's poll and what the loop does about it."""
    then: list[Callable[[], None]] = []
    kept: list[Any] = []

    def call_then() -> None:
        if then:
            then.pop()()

    if request.param == "python":
        real = zmq.zmq_poll

        def poll(wanted: list[Any], timeout: int = -1) -> Any:
            found = real(wanted, timeout)
            if len(wanted) > 1 and found:
                call_then()
            return found

        monkeypatch.setattr(relay_loop_python.zmq, "zmq_poll", poll)
    else:
        library = relay_loop._library()
        at = next(n for n in range(32) if library_name(n) == b"zmq_poll")
        genuine = _Poll(library.functions[at])

        def wrapped(items: Any, count: int, timeout: int) -> int:
            found = int(genuine(items, count, timeout))
            if found > 0:
                call_then()
            return found

        kept.append(_Poll(wrapped))
        functions = type(library.functions)(*library.functions)
        functions[at] = ctypes.cast(kept[0], ctypes.c_void_p).value
        monkeypatch.setattr(library, "functions", functions)
    yield then.append
    kept.clear()


def library_name(number: int) -> bytes | None:
    name = ctypes.PyDLL(str(relay_loop.LIBRARY)).relay_function_name
    name.argtypes, name.restype = [ctypes.c_uint], ctypes.c_char_p
    found: bytes | None = name(number)
    return found


def test_what_is_known_before_a_call_came_counts_for_it(
    request: pytest.FixtureRequest, after_poll: Callable[..., None], context: SocketContext, peers: SocketContext
) -> None:
    wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    with (
        context.socket(zmq.ROUTER, owner="front", router_mandatory=True) as front,
        context.socket(zmq.DEALER, owner="to the first") as to_first,
        context.socket(zmq.DEALER, owner="to the second") as to_second,
        peers.socket(zmq.ROUTER, owner="first") as first,
        peers.socket(zmq.ROUTER, owner="second") as second,
        peers.socket(zmq.DEALER, owner="client") as client,
    ):
        to_first.connect(first.bind("tcp://127.0.0.1:*"))
        to_second.connect(second.bind("tcp://127.0.0.1:*"))
        client.connect(front.bind("tcp://127.0.0.1:*"))
        native = "native" in request.node.name
        loop = relay_loop.make(front, wake_fd, LoopLimits(4, 100, 1000, 50), b"expired", native=native)
        slot = loop.add(to_first, b"lost")
        assert slot is not None
        loop.ready(slot)
        client.raw.send(call_frame(1))
        assert front.raw.poll(5000)
        after_poll(lambda: os.eventfd_write(wake_fd, 1))
        assert loop.run(5000) is Outcome.WOKEN
        assert os.eventfd_read(wake_fd) == 1
        loop.retire(slot)
        other = loop.add(to_second, b"lost")
        assert other is not None
        loop.ready(other)
        assert loop.run(1) is Outcome.TIMEOUT
        wait_until(lambda: second.raw.poll(0), "the call, at the second instance")
        assert not first.raw.poll(0)
        assert (loop.in_flight(slot), loop.in_flight(other)) == (0, 1)
        loop.close()
    os.close(wake_fd)
