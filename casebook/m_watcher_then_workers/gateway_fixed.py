"""Incident M put right: the workers are forked while there is nothing to inherit, then the master connects.

python gateway_fixed.py open|dropped HOSTS PID
"""

from __future__ import annotations

from casebook.m_watcher_then_workers.gateway import WORKERS, fork_worker, main, watch
from kazoo.client import KazooClient


def fork_then_connect(hosts: str) -> tuple[list[KazooClient], list[tuple[int, int]]]:
    workers = [fork_worker() for _worker in range(WORKERS)]
    return watch(hosts), workers


if __name__ == "__main__":
    main(fork_then_connect)
