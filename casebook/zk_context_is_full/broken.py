"""A socket is kept for each peer that ever was. At the 1 024th there is none left, far from any limit of descriptors.

python -m casebook.zk_context_is_full.broken
"""

from __future__ import annotations

import resource

import zmq
from casebook.nearby import Context, Socket, paced, ready

PER_S = 20
LIMIT = 4096
PEERS = 2000


class Peers:
    """Sockets by the names of peers."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.sockets: dict[str, Socket] = {}

    def socket(self, name: str) -> Socket:
        """The socket of a peer, made when it is first needed."""
        if name not in self.sockets:
            self.sockets[name] = self.context.socket(zmq.DEALER)
        return self.sockets[name]


def main(peers: Peers) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(LIMIT, hard), hard))
    try:
        for number in range(PEERS):
            peers.socket(f"peer-{number}")
    except zmq.ZMQError as error:
        print(f"no socket for the next peer: {error}", flush=True)
    ready()
    for _ in paced(PER_S):
        pass


if __name__ == "__main__":
    main(Peers(zmq.Context()))
