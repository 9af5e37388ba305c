"""The checks put right: run() reads the pipe to its end and closes it; the history keeps some results."""

from __future__ import annotations

import subprocess
import sys
from collections import deque

from casebook.pace import requests

history: deque[subprocess.CompletedProcess[bytes]] = deque(maxlen=100)


def check(path: str) -> bool:
    done = subprocess.run(["df", path], stdout=subprocess.PIPE, timeout=10.0, check=False)
    history.append(done)
    return done.returncode == 0


def main() -> None:
    for _request in requests(per_second=8):
        if not check("/"):
            print("the storage is away", file=sys.stderr)


if __name__ == "__main__":
    main()
