"""News to each subscriber, twice a second. The subscribers' network goes away, with no FIN; the server goes on sending
into a queue that nobody empties, and keeps each connection until the kernel gives up, after a quarter of an hour.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from casebook.pace import requests
from casebook.z_peers_gone_silently import network

PHONES = 15


def subscribed(listener: socket.socket) -> list[socket.socket]:
    words = [sys.executable, str(Path(__file__).with_name("phones.py")), str(listener.getsockname()[1]), str(PHONES)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as phones:
        accepted = [listener.accept()[0] for _phone in range(PHONES)]
        assert phones.stdout is not None
        phones.stdout.readline()
        network.cut()
        phones.kill()
    return accepted


def main() -> None:
    network.enter()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        subscribers = subscribed(listener)
        for number in requests(per_second=2):
            for subscriber in subscribers:
                subscriber.sendall(b"news %d\n" % number)


if __name__ == "__main__":
    main()
