"""News to subscribers, put right: what a peer has not acknowledged in 2 s ends its connection (TCP_USER_TIMEOUT)."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from casebook.pace import requests
from casebook.z_peers_gone_silently import network

PHONES = 15
UNANSWERED_MS = 2000  # 30 000, in real life


def subscribed(listener: socket.socket) -> list[socket.socket]:
    words = [sys.executable, str(Path(__file__).with_name("phones.py")), str(listener.getsockname()[1]), str(PHONES)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as phones:
        accepted = [listener.accept()[0] for _phone in range(PHONES)]
        assert phones.stdout is not None
        phones.stdout.readline()
        network.cut()
        phones.kill()
    return accepted


def sent(subscriber: socket.socket, line: bytes) -> bool:
    try:
        subscriber.sendall(line)
    except OSError:  # ETIMEDOUT: the kernel has given it up
        subscriber.close()
        return False
    return True


def main() -> None:
    network.enter()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        subscribers = subscribed(listener)
        for subscriber in subscribers:
            subscriber.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)
        for number in requests(per_second=2):
            subscribers = [each for each in subscribers if sent(each, b"news %d\n" % number)]


if __name__ == "__main__":
    main()
