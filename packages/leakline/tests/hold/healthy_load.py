"""A load of many short connections: bursts of 1 to 30 at once, opened, used and closed; then a pause.

    python healthy_load.py tcp|udp PORT REQUEST [least bytes of an answer]

REQUEST has Python's escapes; PORT may be a path of a UNIX socket. Prints how many were answered, a line a burst.
"""

from __future__ import annotations

import random
import socket
import sys
import time

PAUSES_S = (0.02, 0.05, 0.1, 0.3, 1.0)
PATIENCE_S = 20.0


def burst(kind: str, port: int, request: bytes, least: int, size: int) -> int:
    """How many of so many connections at once were answered."""
    sockets = []
    answered = 0
    try:
        for _ in range(size):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
            sockets.append(made)
            made.settimeout(PATIENCE_S)
            made.connect(("127.0.0.1", port))
        for each in sockets:
            each.sendall(request)
        for each in sockets:
            answered += len(each.recv(65536)) >= least
    except OSError:  # a server that restarts a worker
        pass
    finally:
        for each in sockets:
            each.close()
    return answered


def main() -> None:
    """Until it is ended."""
    kind, port, text = sys.argv[1:4]
    request = text.encode("latin-1").decode("unicode_escape").encode("latin-1")
    least = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    while True:
        print(burst(kind, int(port), request, least, random.choice((1, 2, 5, 10, 30))), flush=True)
        time.sleep(random.choice(PAUSES_S))


if __name__ == "__main__":
    main()
