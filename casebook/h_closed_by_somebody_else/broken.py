"""Incident H: at its end the program closes "all that is still open", and libzmq aborts it.

    python -m casebook.h_closed_by_somebody_else.broken

The server is away, so libzmq tries to connect again every few milliseconds, in its own thread, until the process is
gone. The first attempt after the sweep uses an epoll descriptor that is no longer there.
"""

from __future__ import annotations

import atexit
import os
import time

import zmq
from casebook.nearby import Context, ready

RECONNECT_MS = 10
WORKS_FOR_S = 0.5
FLUSHES_FOR_S = 0.5
NOWHERE = "tcp://127.0.0.1:1"


def close_all() -> None:
    """As daemons do, so that nothing stays locked or half written."""
    os.closerange(3, 1024)  # casebook: closes


def flush() -> None:
    """Others have something to do at the end, too: metrics are sent, logs are written."""
    time.sleep(FLUSHES_FOR_S)


def main() -> None:
    atexit.register(flush)
    atexit.register(close_all)  # runs first: the last registered
    work()


def work() -> None:
    """A client whose server is away."""
    context: Context = zmq.Context()
    client = context.socket(zmq.DEALER)
    client.linger = 0
    client.reconnect_ivl = RECONNECT_MS
    client.connect(NOWHERE)
    ready()
    time.sleep(WORKS_FOR_S)
    _kept.append(client)


_kept: list[zmq.Socket[bytes]] = []  # a global: it lives until the interpreter is torn down

if __name__ == "__main__":
    main()
