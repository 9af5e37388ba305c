"""The storm put right: one connection for all calls, made again when it is lost.

python connection_kept.py PORT
"""

from __future__ import annotations

import socket
import sys

from casebook.pace import requests


class Client:
    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: socket.socket | None = None

    def call(self, request: int) -> bytes:
        if self._connection is None:
            self._connection = socket.create_connection(("127.0.0.1", self._port), 5.0)
        try:
            self._connection.sendall(b"%d\n" % request)
            return self._connection.recv(100)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def main() -> None:
    client = Client(int(sys.argv[1]))
    try:
        for request in requests(per_second=250):
            client.call(request)
    finally:
        client.close()


if __name__ == "__main__":
    main()
