"""The proxy put right: it knows what it needs, raises its own soft limit, and says so if it may not."""

from __future__ import annotations

import resource
import socket
import sys

from casebook.pace import requests

BACKENDS = 28
NEEDED = 2 * BACKENDS + 100


def raise_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        sys.exit(f"proxy: {BACKENDS} backends need {needed} descriptors, {hard} are allowed; raise LimitNOFILE=")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    raise_limit(NEEDED)
    connections = [socket.socketpair() for _backend in range(BACKENDS)]
    for request in requests(per_second=20):
        near, far = connections[request % BACKENDS]
        near.send(b"request")
        far.recv(100)


if __name__ == "__main__":
    main()
