"""Incident J in Python: each login is counted at statsd twice, once from a fixed port (the firewall wants that).

    python login_statistics.py PORT_OF_STATSD

Since statsd moved to the same host it has that port itself: bind() fails (EADDRINUSE). The error is kept for the health
page, with its traceback: that keeps the frame of count(), and the frame keeps the socket.
"""

from __future__ import annotations

import socket
import sys

from casebook.pace import requests

failures: list[OSError] = []  # shown by the health page


def count(what: str, port: int, *, source: int = 0) -> None:
    statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # casebook: socket
    try:
        statsd.bind(("127.0.0.1", source))
        statsd.connect(("127.0.0.1", port))
        statsd.send(f"{what}:1|c".encode())
    except OSError as error:
        failures.append(error)
        return
    statsd.close()


def main() -> None:
    port = int(sys.argv[1])
    for _login in requests(per_second=10):
        count("logins", port)
        count("login_seconds", port, source=port)


if __name__ == "__main__":
    main()
