"""Incident L: a ROUTER in plain pyzmq at its limit of descriptors. accept() fails, the connection stays in the queue,
epoll reports it again at once: libzmq's I/O thread spins.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import zmq
from casebook.pace import SECONDS, requests

LIMIT = 64  # 1 024, in real life


def is_full() -> bool:
    try:
        os.close(os.dup(0))
    except OSError:
        return True
    return False


def serve(router: zmq.Socket[bytes]) -> None:
    told = False
    for _turn in requests(per_second=20, ready=""):
        while router.poll(0):
            router.send_multipart([router.recv(), *router.recv_multipart()])
        if not told and is_full():
            told = True
            print("ready", flush=True)


def main() -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    words = [sys.executable, str(Path(__file__).with_name("crowd.py")), str(port), "100"]
    with subprocess.Popen(words) as crowd:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        serve(router)
        crowd.wait(SECONDS)
    context.destroy(linger=0)


if __name__ == "__main__":
    main()
