"""Sessions in Redis put right: one pool for the process, handed to whoever needs it.

python session_store_fixed.py PORT_OF_REDIS
"""

from __future__ import annotations

import socket
import sys

from casebook.pace import requests


class Pool:
    """Connections that are kept for the next command."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[socket.socket] = []

    def command(self, *words: str) -> bytes:
        connection = self._idle.pop() if self._idle else self._connect()
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection.sendall(f"*{len(words)}\r\n{parts}".encode())
        reply = connection.recv(65536)
        self._idle.append(connection)
        return reply

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), 5.0)


def handle(pool: Pool, request: int) -> None:
    pool.command("SET", f"session:{request}", "user")


def main() -> None:
    pool = Pool(int(sys.argv[1]))
    for request in requests(per_second=8):
        handle(pool, request)


if __name__ == "__main__":
    main()
