"""A reload listens anew, with SO_REUSEPORT so that no connection is refused meanwhile; the old listener stays open.

The kernel goes on giving it its share of the connections. Nobody accepts them: clients hang.
"""

from __future__ import annotations

import socket

from casebook.pace import requests

listeners: list[socket.socket] = []  # the last one is served


def listen(port: int) -> socket.socket:
    listener = socket.socket()  # casebook: listener
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def reload() -> None:
    port = listeners[-1].getsockname()[1] if listeners else 0
    listeners.append(listen(port))


def main() -> None:
    for _reload in requests(per_second=8):
        reload()


if __name__ == "__main__":
    main()
