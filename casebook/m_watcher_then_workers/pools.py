"""What the master tells its workers: which backends of each pool live. One line of text down a pipe, as it changes."""

from __future__ import annotations

import os

from kazoo.client import KazooClient

POOLS = 12


def follow(watcher: KazooClient, pool: int) -> set[str]:
    """The backends of a pool, kept up to date by ZooKeeper's watches."""
    live: set[str] = set()
    path = f"/pools/{pool}"
    watcher.ensure_path(path)

    def changed(names: list[str]) -> None:
        live.clear()
        live.update(names)

    watcher.ChildrenWatch(path, changed)
    return live


def tell(pipe: int, backends: list[set[str]]) -> None:
    """One message for all pools; shorter than a pipe takes at once."""
    os.write(pipe, ";".join(",".join(sorted(live)) for live in backends).encode() + b"\n")


def serve(pipe: int) -> None:
    """A worker: hears of its backends until its master is gone. It has not a line about ZooKeeper."""
    while os.read(pipe, 4096):
        pass
    os._exit(0)
