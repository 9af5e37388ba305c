"""A send that is refused processes the socket's commands too: it must not swallow the news of a message that came
meanwhile.
"""

from __future__ import annotations

import asyncio
import time

import pytest
import zmq

from datacenter.sockets import SocketContext
from datacenter.sockets.loop import LoopSocket


@pytest.mark.parametrize("refused_by", ["a full peer", "a peer that is gone"])
async def test_a_refused_send_does_not_stall_the_socket(refused_by: str) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    people: dict[bytes, bytes] = {}

    def on_message(who: bytes, frame: bytes) -> None:
        people[frame] = who
        heard.put_nowait(frame)

    loop = asyncio.get_running_loop()
    with SocketContext("test") as context, zmq.Context() as peers:
        server = context.socket(zmq.ROUTER, owner="server", router_mandatory=True, send_high_water=1)
        stream = LoopSocket(server, loop, on_message)
        endpoint = server.bind("tcp://127.0.0.1:*")
        with peers.socket(zmq.DEALER) as deaf, peers.socket(zmq.DEALER) as talking:
            for peer, word in ((deaf, b"deaf"), (talking, b"talking")):
                peer.linger, peer.rcvhwm, peer.rcvbuf = 0, 1, 4096
                peer.connect(endpoint)
                peer.send(word)
                assert await asyncio.wait_for(heard.get(), 5) == word
            wanted: bool | None = False
            if refused_by == "a full peer":
                while stream.send_to(people[b"deaf"], bytes(100_000)):
                    pass
            else:
                people[b"deaf"], wanted = b"nobody", None
            for number in range(20):
                await asyncio.sleep(0.01)  # the loop is idle: it has taken every edge there was
                talking.send(b"%d" % number)
                time.sleep(0.02)  # noqa: ASYNC251  the message arrives while the loop is busy elsewhere …
                while (refused := stream.send_to(people[b"deaf"], bytes(100_000))) is True:
                    pass  # the kernel had room again
                assert refused is wanted  # … and this send took note of it first
                assert await asyncio.wait_for(heard.get(), 5) == b"%d" % number
            stream.close()
