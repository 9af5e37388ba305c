"""Sockets close in the one safe order, whatever happens at that moment: monitor, then its reader, then the socket.

In a process of its own, for the wrong orders freeze the interpreter or block libzmq's reaper or I/O thread for ever.
"""

from __future__ import annotations

from collections.abc import Callable

#: what the program takes is 2 s; a machine with other work gets more
DEADLINE_S = 30.0

PROGRAM = """
    import socket, threading, time, zmq
    from datacenter.sockets import SocketContext
    from datacenter.sockets.ledger import open_descriptors

    before = open_descriptors()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    stop = threading.Event()
    def flap():
        while not stop.is_set():
            listener.accept()[0].close()
    flapping = threading.Thread(target=flap, daemon=True)
    flapping.start()

    def wait_until(condition, what):
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.0005)

    def restless():
        made = context.socket(zmq.DEALER, owner="restless", reconnect_min_ms=1, reconnect_max_ms=0)
        made.connect(address)
        return made

    def round_trip():
        with context.socket(zmq.ROUTER, owner="server") as server, context.socket(zmq.DEALER, owner="client") as client:
            client.connect(server.bind("tcp://127.0.0.1:*"))
            client.raw.send(b"ping")
            assert server.raw.poll(10_000), "the I/O thread stands still"
            server.raw.send_multipart(server.raw.recv_multipart())
            assert client.raw.poll(10_000), "the I/O thread stands still"
            assert client.raw.recv() == b"ping"

    with SocketContext("closing") as context:
        round_trip()
        crowd = [restless() for _ in range(24)]
        for turn in range(300):
            at = turn % len(crowd)
            wait_until(lambda: crowd[at].statistics().events > 2, "events flow")
            crowd[at].close()
            crowd[at] = restless()
            if turn % 50 == 0:
                round_trip()
        for each in crowd:
            each.close()
        round_trip()
        assert context.close().clean
    stop.set()
    socket.create_connection(listener.getsockname()).close()
    flapping.join()
    listener.close()
    wait_until(lambda: open_descriptors() == before, "all descriptors are closed: the reaper is not blocked")
"""


def test_sockets_close_while_events_flow(child: Callable[..., str]) -> None:
    """24 sockets that reconnect every millisecond to peers that accept and close at once; 300 of them close."""
    child(PROGRAM, deadline_s=DEADLINE_S)
