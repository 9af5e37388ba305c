"""A check of each storage path runs `df` and keeps its process for the history page, unread pipe included."""

from __future__ import annotations

import subprocess
import sys

from casebook.pace import requests

history: list[subprocess.Popen[bytes]] = []


def check(path: str) -> bool:
    child = subprocess.Popen(["df", path], stdout=subprocess.PIPE)  # casebook: pipe
    history.append(child)
    return child.wait(10.0) == 0


def main() -> None:
    for _request in requests(per_second=8):
        if not check("/"):
            print("the storage is away", file=sys.stderr)


if __name__ == "__main__":
    main()
