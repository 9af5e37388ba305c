"""Incident K, the storm: a connection for each call beside the one that it has. Each stays in TIME_WAIT for a minute.

    python connection_per_call.py PORT

netstat shows thousands of sockets; the process holds none of them.
"""

from __future__ import annotations

import socket
import sys

from casebook.pace import requests


def call(port: int, request: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
        connection.sendall(b"%d\n" % request)
        return connection.recv(100)


def main() -> None:
    port = int(sys.argv[1])
    with socket.create_connection(("127.0.0.1", port), 5.0) as session:
        session.sendall(b"login\n")
        for request in requests(per_second=250):
            call(port, request)


if __name__ == "__main__":
    main()
