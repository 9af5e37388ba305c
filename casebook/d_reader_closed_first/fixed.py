"""Incident D put right: the monitor is stopped while it can still be read, then its reader is closed, then the socket.

python fixed.py
"""

from __future__ import annotations

import zmq
from casebook.d_reader_closed_first import broken
from casebook.nearby import Context


class Session(broken.Session):
    """A Session that ends its monitor in the one safe order."""

    def stop_watching(self) -> None:
        """disable_monitor() makes libzmq send MONITOR_STOPPED now, from this thread, while there is a reader for it."""
        self.socket.disable_monitor()
        self.monitor.close()


class Names(broken.Names):
    """Names that are asked for over one socket: none of them could leak, whatever blocks the reaper."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(context, endpoint)
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def ask(self) -> bytes:
        """Where a service is."""
        self.socket.send(b"where?")
        return self.socket.recv()


if __name__ == "__main__":
    broken.main(Session, Names)
