"""A bound: the socket of the peer that was not needed for longest is closed when a new one comes.

python -m casebook.zk_context_is_full.fixed
"""

from __future__ import annotations

import zmq
from casebook.nearby import Socket
from casebook.zk_context_is_full import broken

MOST = 100


class Peers(broken.Peers):
    """Peers of which so many are connected at most."""

    def socket(self, name: str) -> Socket:
        """As before; the name that was asked for last stands last."""
        found = self.sockets.pop(name, None) or self.context.socket(zmq.DEALER)
        self.sockets[name] = found
        if len(self.sockets) > MOST:
            self.sockets.pop(next(iter(self.sockets))).close(linger=0)
        return found


if __name__ == "__main__":
    broken.main(Peers(zmq.Context()))
