"""Connects to one address many times over, and holds what it gets: the load of limit.py, in a process of its own.

    python flood.py HOST PORT COUNT

Peer by peer in turn: one that says nothing, one that shakes hands and then says nothing, one that resets its
connection at once. Each tries again 0.1 s after its end, for ever, as ZeroMQ's sockets do. Prints `open` when each has
tried once, and then, every second, how many tries there were.
"""

from __future__ import annotations

import errno
import heapq
import resource
import select
import socket
import struct
import sys
import time

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31)
PROPERTY = b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
READY = b"\x04" + bytes([len(PROPERTY) + 6]) + b"\x05READY" + PROPERTY
AGAIN_S = 0.1


class Flood:
    def __init__(self, host: str, port: int, count: int) -> None:
        self.address = (host, port)
        self.count = count
        self.tries = 0
        self.epoll = select.epoll()
        self.sockets: dict[int, tuple[int, socket.socket]] = {}  # descriptor -> (which peer, its socket)
        self.due = [(0.0, peer) for peer in range(count)]

    def connect(self, peer: int) -> None:
        self.tries += 1
        made = socket.socket()
        made.setblocking(False)
        if made.connect_ex(self.address) not in (0, errno.EINPROGRESS):
            made.close()
            heapq.heappush(self.due, (time.monotonic() + AGAIN_S, peer))
            return
        self.sockets[made.fileno()] = (peer, made)
        self.epoll.register(made, select.EPOLLOUT | select.EPOLLET)

    def event(self, number: int, what: int) -> None:
        peer, made = self.sockets[number]
        try:
            if what & select.EPOLLOUT:
                if peer % 3 == 1:
                    made.sendall(GREETING + READY)
                if peer % 3 == 2:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    raise ConnectionResetError
                self.epoll.modify(made, select.EPOLLIN | select.EPOLLET)
            elif not made.recv(4096):
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            del self.sockets[number]
            made.close()
            heapq.heappush(self.due, (time.monotonic() + AGAIN_S, peer))

    def run(self) -> None:
        began = told = time.monotonic()
        while True:
            for _ in range(50):
                if self.due and self.due[0][0] <= time.monotonic():
                    self.connect(heapq.heappop(self.due)[1])
            for number, what in self.epoll.poll(0.002):
                self.event(number, what)
            now = time.monotonic()
            if self.tries >= self.count and began:
                print("open", flush=True)
                began = 0.0
            if now - told > 1.0:
                told = now
                print(f"tries {self.tries}", flush=True)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Flood(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).run()
