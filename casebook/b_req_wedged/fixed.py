"""Incident B put right: a DEALER may send whenever it likes, and each request has a number that its reply must have.

python -m casebook.b_req_wedged.fixed
"""

from __future__ import annotations

import zmq
from casebook.b_req_wedged import broken
from casebook.nearby import Context


class Registration(broken.Registration):
    """A Registration that a lost reply costs one time-out, and nothing else."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = broken.TIMEOUT_MS
        self.socket.connect(endpoint)
        self.number = 0

    def renew(self) -> str:
        """As before. A late reply to an earlier request is not taken for this one's."""
        self.number += 1
        request = b"here I am %d" % self.number
        try:
            self.socket.send(request)
            while self.socket.recv() != request:
                pass
        except zmq.ZMQError as error:
            return f"not registered: {error}"
        return "registered"


if __name__ == "__main__":
    broken.main(Registration)
