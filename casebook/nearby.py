"""What programs of the casebook have in common: a server to talk to, the line that says that they run, their pace.

Each program runs by itself: `python -m casebook.d_reader_closed_first.broken`, from the root of the repository.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator

import zmq

ENDS_AFTER_S = 120.0  # should nobody end it
Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


def ready() -> None:
    """Says which process to look at, and that there is something to see."""
    print(f"ready {os.getpid()}", flush=True)


def paced(per_second: float) -> Iterator[int]:
    """Counts on at this pace. Ends the process after `ENDS_AFTER_S`, at once: threads may still use their sockets."""
    end = time.monotonic() + ENDS_AFTER_S
    count = 0
    while time.monotonic() < end:
        yield count
        count += 1
        time.sleep(1 / per_second)
    sys.stdout.flush()
    os._exit(0)


def answering_server(endpoint: str = "tcp://127.0.0.1:*") -> str:
    """A server that answers each message with the same, in a thread and a context of its own: its endpoint."""
    server: Socket = zmq.Context().socket(zmq.ROUTER)
    server.bind(endpoint)
    threading.Thread(target=_answer, args=(server,), daemon=True).start()
    return address(server)


def address(bound: Socket) -> str:
    """Where a socket listens."""
    return str(bound.getsockopt_string(zmq.LAST_ENDPOINT))


def _answer(server: Socket) -> None:
    while True:
        server.send_multipart(server.recv_multipart())
