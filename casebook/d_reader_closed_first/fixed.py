"""Incident D put right: the monitor is stopped while it can still be read, then its reader is closed, then the socket.

python fixed.py
"""

from __future__ import annotations

from casebook.d_reader_closed_first import broken


class Session(broken.Session):
    """A Session that ends its monitor in the one safe order."""

    def stop_watching(self) -> None:
        """disable_monitor() makes libzmq send MONITOR_STOPPED now, from this thread, while there is a reader for it."""
        self.socket.disable_monitor()
        self.monitor.close()


if __name__ == "__main__":
    broken.main(Session)
