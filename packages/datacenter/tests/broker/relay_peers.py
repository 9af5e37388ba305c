"""Clients and services for the tests of relays: real sockets, real messages of the wire, threads that echo."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import zmq

from datacenter import wire
from datacenter.sockets import OwnedSocket, SocketContext, bundles

#: What a relayable call's id begins with: bit 63, and label 0.
FIRST_ID = 1 << 63
DEADLINE_S = 10.0

#: makes one more client of the relay under test
Connect = Callable[..., OwnedSocket]


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return when `condition()` is true; raise, naming `what`, after a generous deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"did not happen within {deadline_s} s: {what}")
        time.sleep(0.002)


def call_frame(number: int, payload: bytes = b"", timeout_ms: int = 60_000) -> bytes:
    return wire.encode(wire.OutgoingCall(FIRST_ID + number, "echo", "back", timeout_ms, (payload,), {}))


class EchoService:
    """A ROUTER in a thread that answers each call with its argument. `hold()` makes it stop reading."""

    def __init__(self, context: SocketContext, **options: Any) -> None:
        self.seen: set[tuple[int, bytes]] = set()
        self.calls = 0
        self._reading = threading.Event()
        self._reading.set()
        self._parked = threading.Event()
        self._stopping = False
        self._begun = threading.Event()
        self.endpoint = ""
        self._thread = threading.Thread(target=self._run, args=(context, options), daemon=True)
        self._thread.start()
        assert self._begun.wait(DEADLINE_S)

    def hold(self) -> None:
        self._parked.clear()
        self._reading.clear()
        assert self._parked.wait(DEADLINE_S)

    def go_on(self) -> None:
        self._reading.set()

    def close(self) -> None:
        self._stopping = True
        self._reading.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def _run(self, context: SocketContext, options: dict[str, Any]) -> None:
        with context.socket(zmq.ROUTER, owner="echo", **options) as owned:
            self.endpoint = owned.bind("tcp://127.0.0.1:*")
            self._begun.set()
            raw = owned.raw
            while not self._stopping:
                if not self._reading.is_set():
                    self._parked.set()
                    self._reading.wait()
                if not raw.poll(20):
                    continue
                with contextlib.suppress(zmq.Again):
                    for _ in range(500):
                        client, message = raw.recv(zmq.NOBLOCK), raw.recv(zmq.NOBLOCK)
                        assert not raw.getsockopt(zmq.RCVMORE)
                        for frame in bundles.split(message):
                            raw.send(client, zmq.SNDMORE)
                            raw.send(self._answer(frame))

    def _answer(self, frame: bytes) -> bytes:
        call = wire.decode_call(frame)
        self.calls += 1
        return wire.encode(wire.OutgoingResult(call.id, msgspec.msgpack.decode(call.args)[0]))


@contextlib.contextmanager
def echo_service(context: SocketContext, **options: Any) -> Iterator[EchoService]:
    service = EchoService(context, **options)
    try:
        yield service
    finally:
        service.close()


_rests: weakref.WeakKeyDictionary[OwnedSocket, deque[tuple[bytes, bytes]]] = weakref.WeakKeyDictionary()


def receive_frame(owned: OwnedSocket, what: str = "no message came") -> tuple[bytes, bytes]:
    """The next frame, and on a ROUTER whose it is; those of a bundle come one after the other."""
    rest = _rests.setdefault(owned, deque())
    if not rest:
        assert owned.raw.poll(int(DEADLINE_S * 1000)), what
        who = owned.raw.recv() if owned.raw.getsockopt(zmq.TYPE) == zmq.ROUTER else b""
        rest.extend((who, frame) for frame in bundles.split(owned.raw.recv()))
        assert rest
        assert not owned.raw.getsockopt(zmq.RCVMORE)
    return rest.popleft()


def receive_reply(client: OwnedSocket, what: str = "no reply came") -> tuple[int, wire.FromService]:
    """The next reply: the number of its call, and what it says."""
    reply = wire.decode_reply(receive_frame(client, what)[1])
    return reply.id - FIRST_ID, reply


def expect_replies(client: OwnedSocket, numbers: set[int], payload: Callable[[int], bytes]) -> None:
    """Receives the reply of each call in `numbers`, in any order: each once, whole, with its own payload."""
    left = set(numbers)
    while left:
        number, reply = receive_reply(client, f"{len(left)} of {len(numbers)} replies did not come")
        assert isinstance(reply, wire.Result)
        assert number in left, f"reply {number:#x} was not asked for, or came twice"
        assert msgspec.msgpack.decode(reply.body) == payload(number)
        left.remove(number)


_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
#: the beginning of a message of one million bytes
HALF_A_MESSAGE = b"\x02" + (1_000_000).to_bytes(8, "big") + b"\x97\x01\xcf\x80" + bytes(5000)


def shake_hands(peer: socket.socket, kind: bytes) -> None:
    """ZMTP 3.0 by hand, so that the peer can end in the middle of a message."""
    peer.settimeout(DEADLINE_S)
    peer.sendall(_GREETING)
    received = b""
    while len(received) < 64:
        received += peer.recv(64 - len(received))
    body = b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    peer.sendall(b"\x04" + bytes([len(body)]) + body)
    assert peer.recv(2)[:1] == b"\x04"
