"""Sessions in Redis, with a pool of connections for each request: each pool keeps the one connection that it made.

python session_store.py PORT_OF_REDIS
"""

from __future__ import annotations

import socket
import sys
from typing import ClassVar

from casebook.pace import requests


class Pool:
    """Connections that are kept for the next command. `pools` is what the metrics page shows."""

    pools: ClassVar[list[Pool]] = []

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[socket.socket] = []
        Pool.pools.append(self)

    def command(self, *words: str) -> bytes:
        connection = self._idle.pop() if self._idle else self._connect()
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection.sendall(f"*{len(words)}\r\n{parts}".encode())
        reply = connection.recv(65536)
        self._idle.append(connection)
        return reply

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), 5.0)  # casebook: connection


def handle(port: int, request: int) -> None:
    Pool(port).command("SET", f"session:{request}", "user")


def main() -> None:
    for request in requests(per_second=8):
        handle(int(sys.argv[1]), request)


if __name__ == "__main__":
    main()
