"""Incident M: a proxy's master watches in ZooKeeper which backends of each pool live, and tells its workers through
pipes. It connects first and forks then: each worker has a copy of every connection to ZooKeeper.

    python gateway.py open|dropped HOSTS PID

HOSTS, PID: ZooKeeper's address, and a process in its network. open: the network is well; dropped: a firewall drops
ZooKeeper's answers for longer than the sessions last, then lets them through.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from casebook.m_watcher_then_workers import firewall
from casebook.m_watcher_then_workers.pools import POOLS, follow, serve, tell
from casebook.pace import requests
from kazoo.client import KazooClient

WORKERS = 2


def watch(hosts: str) -> list[KazooClient]:
    """A session for each pool, as each has a watcher of its own."""
    watchers = [KazooClient(hosts=hosts, timeout=firewall.SESSION_S) for _pool in range(POOLS)]
    for watcher in watchers:
        watcher.start(timeout=30.0)
    return watchers


def fork_worker() -> tuple[int, int]:
    """A worker's pid, and the end of the pipe through which it is told of its backends."""
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(writing)
        serve(reading)
    os.close(reading)
    return worker, writing


def main(start: Callable[[str], tuple[list[KazooClient], list[tuple[int, int]]]]) -> None:
    """Plays it. `start`: connects and forks, in one order or the other."""
    mode, hosts, network_of = sys.argv[1:]
    firewall.join_network_of(network_of)
    watchers, workers = start(hosts)
    backends = [follow(watcher, pool) for pool, watcher in enumerate(watchers)]
    looked_at = os.getpid()
    if mode == "dropped":
        looked_at = workers[0][0]
        firewall.drops(watchers, hosts.rpartition(":")[2])
        firewall.lets_through(watchers, looked_at)
    print(f"ready {looked_at}", flush=True)
    for _tick in requests(per_second=5, ready=""):
        for _worker, pipe in workers:
            tell(pipe, backends)


def connect_then_fork(hosts: str) -> tuple[list[KazooClient], list[tuple[int, int]]]:
    watchers = watch(hosts)
    return watchers, [fork_worker() for _worker in range(WORKERS)]


if __name__ == "__main__":
    main(connect_then_fork)
