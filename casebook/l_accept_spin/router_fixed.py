"""The ROUTER put right, as far as plain pyzmq can: room for all peers, and those who say nothing do not stay.

unbind() when descriptors become few is no way out: libzmq's listener owns what it has accepted, and takes it along.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import zmq
from casebook.pace import SECONDS, requests

LIMIT = 64  # 1 024, in real life: what the shell gave
PEERS = 100


def serve(router: zmq.Socket[bytes]) -> None:
    for _turn in requests(per_second=20):
        while router.poll(0):
            router.send_multipart([router.recv(), *router.recv_multipart()])


def main() -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.HANDSHAKE_IVL, 500)  # 30 000 by default: so long a peer may hold a descriptor in silence
    router.setsockopt(zmq.HEARTBEAT_IVL, 1000)  # the same for peers that fell silent later
    port = router.bind_to_random_port("tcp://127.0.0.1")
    words = [sys.executable, str(Path(__file__).with_name("crowd.py")), str(port), str(PEERS)]
    with subprocess.Popen(words) as crowd:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT + 2 * PEERS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        serve(router)
        crowd.wait(SECONDS)
    context.destroy(linger=0)


if __name__ == "__main__":
    main()
