"""The monitor is read as long as its socket lives, whether somebody wants to know or not.

python -m casebook.zl_monitor_unread.fixed
"""

from __future__ import annotations

from casebook.zl_monitor_unread import broken


class Look(broken.Look):
    """A Look that never ends."""

    def read(self) -> None:
        """All that has come."""
        while self.monitor.poll(0):
            self.monitor.recv_multipart()


if __name__ == "__main__":
    broken.main(Look)
