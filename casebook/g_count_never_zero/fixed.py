"""Incident G put right: not a number but a set of connections, each known by its descriptor.

python -m casebook.g_count_never_zero.fixed
"""

from __future__ import annotations

import zmq
from casebook.g_count_never_zero import broken
from casebook.nearby import Context


class Relay(broken.Relay):
    """A Relay that knows who is there."""

    def __init__(self, context: Context, name: str) -> None:
        super().__init__(context, name)
        self.there: set[int] = set()
        self.used = False

    def count(self, event: int, value: int) -> None:
        """ACCEPTED and DISCONNECTED tell the connection's descriptor; the events of handshakes do not."""
        if event == zmq.EVENT_ACCEPTED:
            self.there.add(value)
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.used = True
        elif event == zmq.EVENT_DISCONNECTED:
            self.there.discard(value)
            if self.used and not self.there:
                self.end()


if __name__ == "__main__":
    broken.main(Relay)
