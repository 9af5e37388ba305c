"""The reload put right: the old listener is closed as soon as the new one listens."""

from __future__ import annotations

import socket

from casebook.pace import requests


def listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


class Server:
    def __init__(self) -> None:
        self._listener = listen(0)

    def reload(self) -> None:
        old, self._listener = self._listener, listen(self._listener.getsockname()[1])
        old.close()


def main() -> None:
    server = Server()
    for _reload in requests(per_second=8):
        server.reload()


if __name__ == "__main__":
    main()
