"""The server put right: without room for ancillary data the kernel drops the files itself (MSG_CTRUNC)."""

from __future__ import annotations

import socket

from casebook.pace import requests


def receive(connection: socket.socket) -> bytes:
    return connection.recv(1000)


def main() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/etc/hostname", "rb") as file:
        for request in requests(per_second=10):
            socket.send_fds(theirs, [b"request %d" % request], [file.fileno()])
            receive(ours)


if __name__ == "__main__":
    main()
