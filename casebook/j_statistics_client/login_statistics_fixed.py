"""Incident J put right: the socket is closed on every path, and of an error only the text is kept.

    python login_statistics_fixed.py PORT_OF_STATSD

The fixed port is as taken as before; that is now a line on the health page and nothing else.
"""

from __future__ import annotations

import socket
import sys
from collections import deque

from casebook.pace import requests

failures: deque[str] = deque(maxlen=100)  # shown by the health page


def count(what: str, port: int, *, source: int = 0) -> None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
            statsd.bind(("127.0.0.1", source))
            statsd.connect(("127.0.0.1", port))
            statsd.send(f"{what}:1|c".encode())
    except OSError as error:
        failures.append(f"{what}: {error}")


def main() -> None:
    port = int(sys.argv[1])
    for _login in requests(per_second=10):
        count("logins", port)
        count("login_seconds", port, source=port)


if __name__ == "__main__":
    main()
