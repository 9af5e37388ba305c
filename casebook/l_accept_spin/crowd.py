"""More peers than a server has descriptors: `python crowd.py PORT PEERS` connects them, 100 a second, and stays."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

from casebook.pace import requests


def main() -> None:
    peers: list[socket.socket] = []
    for peer in requests(per_second=100, ready="", while_parent=True):
        if peer < int(sys.argv[2]):
            with suppress(OSError):  # a listener that is away for a moment
                peers.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5.0))


if __name__ == "__main__":
    main()
