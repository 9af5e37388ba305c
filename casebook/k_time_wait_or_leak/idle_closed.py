"""The leak put right: a connection that was quiet for a second is closed; a client that is still there comes again."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

from casebook.pace import SECONDS, requests

IDLE_S = 1.0  # a minute, in real life
selector = selectors.DefaultSelector()
heard: dict[socket.socket, float] = {}


def take(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.settimeout(5.0)
    selector.register(connection, selectors.EVENT_READ)
    heard[connection] = time.monotonic()


def answer(connection: socket.socket) -> None:
    line = connection.recv(4096)
    if line:
        heard[connection] = time.monotonic()
        connection.sendall(b"at your service: " + line)
    else:
        end(connection)


def end(connection: socket.socket) -> None:
    selector.unregister(connection)
    connection.close()
    del heard[connection]


def serve(listener: socket.socket) -> None:
    selector.register(listener, selectors.EVENT_READ)
    warm = False
    for _turn in requests(per_second=50, ready=""):
        for key, _ in selector.select(0.0):
            if key.fileobj is listener:
                take(listener)
            elif isinstance(key.fileobj, socket.socket):
                answer(key.fileobj)
        for quiet in [each for each, at in heard.items() if time.monotonic() - at > IDLE_S]:
            end(quiet)
            if not warm:  # as many come as go from now on
                warm = True
                print("ready", flush=True)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [sys.executable, str(Path(__file__).with_name("clients.py")), str(listener.getsockname()[1]), "8"]
        with subprocess.Popen(words) as clients:
            serve(listener)
            clients.wait(SECONDS)


if __name__ == "__main__":
    main()
