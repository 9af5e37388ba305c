"""A client may send files along with its messages (SCM_RIGHTS). It reads the message and looks at nothing else:
the kernel has put them into its table all the same.
"""

from __future__ import annotations

import socket

from casebook.pace import requests

ROOM = socket.CMSG_SPACE(4)  # one descriptor; for credentials, in a later version


def receive(connection: socket.socket) -> bytes:
    message, _ancillary, _flags, _address = connection.recvmsg(1000, ROOM)  # casebook: received
    return message


def main() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/etc/hostname", "rb") as file:
        for request in requests(per_second=10):
            socket.send_fds(theirs, [b"request %d" % request], [file.fileno()])
            receive(ours)


if __name__ == "__main__":
    main()
