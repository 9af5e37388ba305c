"""Incident K, the leak: connections whose clients have gone quiet are kept for ever."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
from pathlib import Path

from casebook.pace import SECONDS, requests

selector = selectors.DefaultSelector()


def take(listener: socket.socket) -> None:
    connection, _ = listener.accept()  # casebook: accepted
    connection.settimeout(5.0)
    selector.register(connection, selectors.EVENT_READ)


def answer(connection: socket.socket) -> None:
    line = connection.recv(4096)
    if line:
        connection.sendall(b"at your service: " + line)
    else:
        selector.unregister(connection)
        connection.close()


def serve(listener: socket.socket) -> None:
    selector.register(listener, selectors.EVENT_READ)
    for _turn in requests(per_second=50):
        for key, _ in selector.select(0.0):
            if key.fileobj is listener:
                take(listener)
            elif isinstance(key.fileobj, socket.socket):
                answer(key.fileobj)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [sys.executable, str(Path(__file__).with_name("clients.py")), str(listener.getsockname()[1]), "8"]
        with subprocess.Popen(words) as clients:
            serve(listener)
            clients.wait(SECONDS)


if __name__ == "__main__":
    main()
