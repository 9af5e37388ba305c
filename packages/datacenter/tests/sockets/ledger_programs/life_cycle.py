"""A whole life of sockets, beside eight threads that open other things: at rest the ledger equals /proc at every step.

Prints "ok" and the number of foreign descriptors that were opened meanwhile.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import tempfile
import threading
import time

import zmq

from datacenter.sockets.ledger import Ledger, open_descriptors

DEAD = "tcp://127.0.0.1:9"  # nobody listens at the discard port


class Foreigners:
    """Eight threads that open and close descriptors of every kind that libzmq opens, and files. They can be paused."""

    def __init__(self) -> None:
        self.opened = 0
        self.tids: set[int] = set()
        self._running = threading.Event()
        self._idle = [threading.Event() for _ in range(8)]
        self._end = False
        self._threads = [threading.Thread(target=self._work, args=(idle,), daemon=True) for idle in self._idle]
        for thread in self._threads:
            thread.start()

    def _work(self, idle: threading.Event) -> None:
        self.tids.add(threading.get_native_id())
        while not self._end:
            if not self._running.is_set():
                idle.set()
                self._running.wait(0.2)
                continue
            idle.clear()
            with open("/dev/null"), select.epoll(), socket.socket(), tempfile.TemporaryFile():
                os.close(os.eventfd(0) if hasattr(os, "eventfd") else os.dup(0))
            self.opened += 5

    def pause(self) -> None:
        self._running.clear()
        for idle in self._idle:
            assert idle.wait(20)

    def resume(self) -> None:
        for idle in self._idle:
            idle.clear()
        self._running.set()

    def stop(self) -> None:
        self._end = True
        self._running.set()
        for thread in self._threads:
            thread.join()


def main() -> None:
    foreigners = Foreigners()
    foreigners.pause()
    baseline = open_descriptors()
    ledger = Ledger.open()
    assert ledger.exact, ledger.reason

    def rest(step: str, **kinds: int) -> None:
        """Waits until the ledger equals /proc, and holds as many of each kind as it must."""
        foreigners.pause()
        end = time.monotonic() + 20
        while True:
            wrong = ledger.unexplained(baseline)
            found = ledger.statistics().by_kind
            if not wrong and found == kinds:
                break
            assert time.monotonic() < end, (step, wrong, found, kinds)
            time.sleep(0.01)
        seen = {entry.tid for entry in ledger.entries()} & foreigners.tids
        assert not seen, f"{step}: a foreign thread's descriptor is in the ledger"
        foreigners.resume()

    foreigners.resume()
    with ledger.owner("context"):
        context = zmq.Context()
        rest("context", eventfd=1)
        context.socket(zmq.PAIR).close(0)
    rest("started", eventfd=3, epoll=2)
    with ledger.owner("server"):
        server = context.socket(zmq.ROUTER)
        port = server.bind_to_random_port("tcp://127.0.0.1")
        server.bind(f"ipc://{sys.argv[1]}/ipc")
    rest("bound", eventfd=4, epoll=2, tcp=1, unix=1)
    with ledger.owner("client"):
        client = context.socket(zmq.DEALER)
        client.linger = 0
        client.reconnect_ivl = 1
        client.immediate = 1  # no message waits for the dead port
        monitor = client.get_monitor_socket(zmq.EVENT_CONNECTED)
        client.connect(f"tcp://127.0.0.1:{port}")
        client.connect(f"ipc://{sys.argv[1]}/ipc")
    rest("connected", eventfd=7, epoll=2, tcp=3, unix=3)
    assert ledger.statistics().by_owner == {"context": 5, "server": 3, "client": 3, "": 4}
    for _ in range(2):
        number = int.from_bytes(monitor.recv_multipart()[0][2:], "little")
        assert ledger.assign(number, "client")
    assert ledger.statistics().by_owner == {"context": 5, "server": 3, "client": 5, "": 2}
    assert not ledger.assign(0, "client")

    client.connect(DEAD)
    for each in range(200):  # connects in flight come and go at 1 ms
        client.send(b"%d" % each)
        assert server.poll(20_000)
        server.recv_multipart()
    client.disconnect(DEAD)
    rest("after connects in flight", eventfd=7, epoll=2, tcp=3, unix=3)
    sockets = []
    with ledger.owner("many"):
        for _ in range(50):
            sockets.append(context.socket(zmq.SUB))
            sockets[-1].connect(f"tcp://127.0.0.1:{port}")
    for each_socket in sockets:
        each_socket.close(0)
    ledger.release_owner("many")
    rest("many closed", eventfd=7, epoll=2, tcp=3, unix=3)

    client.disable_monitor()
    monitor.close()
    client.close()
    rest("client closed", eventfd=4, epoll=2, tcp=1, unix=1)
    server.close()
    rest("server closed", eventfd=3, epoll=2)
    context.term()
    rest("terminated")
    foreigners.stop()
    statistics = ledger.statistics()
    assert statistics.opened == statistics.closed > 60
    assert statistics.unpublished == statistics.out_of_range == 0
    path = ledger.path
    assert path
    assert path.exists()
    ledger.close()
    assert not path.exists()
    print("ok", foreigners.opened)


main()
