"""Starts a real ZooKeeper server; prints its address."""

from __future__ import annotations

import tempfile
import time

from datacenter.testing import Ensemble


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="casebook-") as folder, Ensemble(folder) as ensemble:
        print(f"ready {ensemble.hosts}", flush=True)
        time.sleep(180)


if __name__ == "__main__":
    main()
