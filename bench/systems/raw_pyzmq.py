"""Raw pyzmq: the fastest asyncio client and server that one can honestly write by hand. It is the base of the ratios.

Plain sockets (not `zmq.asyncio`) with `loop.add_reader` on their descriptor, drained in batches, bare `send`/`recv`
of a fixed number of frames (not `*_multipart`). Without envelopes that alone has 7 times the throughput of
`zmq.asyncio` (191 000 calls/s against 28 000; pyzmq 27.3, two cores).

It does the work that any typed call needs: a msgspec envelope with call identity, service, method and deadline is
encoded and decoded with validation at both ends, the server looks the method up, a future is made for each call. It is
a ceiling all the same, for it leaves out what a service bus is for: discovery, enforced deadlines, cancellation,
asynchronous handlers, heartbeats, bounded queues, checks of malformed peers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import zmq

from bench.loops import Loop
from bench.messages import DEADLINE_S, METHOD, SERVICE
from bench.systems import Command, python_server
from bench.systems.server import serve_forever

DRAIN_AT_MOST = 200  # messages a turn of the loop: other callbacks get their turn under load
BEHIND_PROXY = "behind-proxy"
DEADLINE_MS = int(DEADLINE_S * 1000)


class Request(msgspec.Struct, array_like=True, gc=False):
    identity: int
    service: str
    method: str
    deadline_ms: int
    payload: bytes


class Reply(msgspec.Struct, array_like=True, gc=False):
    identity: int
    error: str | None
    payload: bytes


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


class RawClient:
    """A DEALER whose replies complete the futures of their calls."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = _unlimited(context.socket(zmq.DEALER))
        self._socket.connect(f"tcp://127.0.0.1:{port}")
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._last_identity = 0
        self._drain_is_due = False
        self._loop.add_reader(self._socket.FD, self._drain)

    async def call(self, payload: bytes) -> bytes:
        self._last_identity = identity = self._last_identity + 1
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._calls[identity] = answer
        self._socket.send(encode(Request(identity, SERVICE, METHOD, DEADLINE_MS, payload)), zmq.DONTWAIT)
        # A send also runs libzmq's commands and so may take the edge off the descriptor: EVENTS must be looked at
        # again. Once a turn of the loop is enough for all the sends of that turn.
        if not self._drain_is_due:
            self._drain_is_due = True
            self._loop.call_soon(self._drain_if_readable)
        return await answer

    def _drain_if_readable(self) -> None:
        self._drain_is_due = False
        events = self._socket.getsockopt(zmq.EVENTS)
        assert isinstance(events, int)
        if events & zmq.POLLIN:
            self._drain()

    def _drain(self) -> None:
        receive, calls = self._socket.recv, self._calls
        for _ in range(DRAIN_AT_MOST):
            try:
                frame = receive(zmq.DONTWAIT)
            except zmq.Again:
                return
            reply = decode_reply(frame)
            answer = calls.pop(reply.identity)
            if answer.cancelled():
                continue
            if reply.error is None:
                answer.set_result(reply.payload)
            else:
                answer.set_exception(RuntimeError(reply.error))
        self._loop.call_soon(self._drain)

    def close(self) -> None:
        self._loop.remove_reader(self._socket.FD)
        self._socket.close()


class RawServer:
    """A ROUTER that answers in its reader callback: no task and no queue between request and reply."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], port: int, *, behind_proxy: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._methods: dict[tuple[str, str], Callable[[bytes], bytes]] = {(SERVICE, METHOD): lambda payload: payload}
        # Behind a proxy it is the proxy's ROUTER that puts the client's identity in front: the frames are the same.
        self._socket = _unlimited(context.socket(zmq.DEALER if behind_proxy else zmq.ROUTER))
        if behind_proxy:
            self._socket.connect(f"tcp://127.0.0.1:{port}")
        else:
            self._socket.bind(f"tcp://127.0.0.1:{port}")
        self._loop.add_reader(self._socket.FD, self._drain)

    def _drain(self) -> None:
        receive, send = self._socket.recv, self._socket.send
        for _ in range(DRAIN_AT_MOST):
            try:
                peer = receive(zmq.DONTWAIT)
            except zmq.Again:
                return
            reply = self._answer(decode_request(receive(zmq.DONTWAIT)))
            send(peer, zmq.SNDMORE | zmq.DONTWAIT)
            send(encode(reply), zmq.DONTWAIT)
        self._loop.call_soon(self._drain)

    def _answer(self, request: Request) -> Reply:
        method = self._methods.get((request.service, request.method))
        if method is None:
            return Reply(request.identity, f"no method {request.service}.{request.method}", b"")
        return Reply(request.identity, None, method(request.payload))


def _unlimited(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    socket.set_hwm(0)  # 100 calls in flight bound the queues already
    socket.linger = 0
    return socket


class RawPyzmq:
    """Adaptor, see `bench.systems.System`."""

    def server_commands(self, port: int, loop: Loop) -> Sequence[Command]:
        return [python_server(__name__, port, loop)]

    @asynccontextmanager
    async def connect(self, port: int) -> AsyncIterator[RawClient]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        client = RawClient(context, port)
        try:
            yield client
        finally:
            client.close()
            context.term()


async def serve(port: int, place: str = "") -> None:
    with zmq.Context() as context:
        RawServer(context, port, behind_proxy=place == BEHIND_PROXY)
        await asyncio.get_running_loop().create_future()  # until a signal ends the process


if __name__ == "__main__":
    serve_forever(serve)
