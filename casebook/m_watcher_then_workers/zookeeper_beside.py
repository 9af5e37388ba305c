"""Starts a real ZooKeeper server in a network namespace of its own; prints its address, and whose namespace that is."""

from __future__ import annotations

import os
import tempfile
import time

from casebook.z_peers_gone_silently import network

from datacenter.testing import Ensemble


def main() -> None:
    network.enter()
    with tempfile.TemporaryDirectory(prefix="casebook-") as folder, Ensemble(folder) as ensemble:
        print(f"ready {ensemble.hosts} {os.getpid()}", flush=True)
        time.sleep(180)


if __name__ == "__main__":
    main()
