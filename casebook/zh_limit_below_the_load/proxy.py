"""A proxy with two connections for each of 28 backends, under a limit that somebody set for another program: 64."""

from __future__ import annotations

import resource
import socket

from casebook.pace import requests

BACKENDS = 28


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    connections = [socket.socketpair() for _backend in range(BACKENDS)]
    for request in requests(per_second=20):
        near, far = connections[request % BACKENDS]
        near.send(b"request")
        far.recv(100)


if __name__ == "__main__":
    main()
