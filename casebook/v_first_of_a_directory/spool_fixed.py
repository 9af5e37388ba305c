"""The spool put right: the list is read whole inside `with`, so that nothing is suspended with a directory open."""

from __future__ import annotations

import os
import tempfile
from collections import deque

from casebook.pace import requests

unfinished: dict[str, deque[str]] = {}


def messages(folder: str) -> deque[str]:
    with os.scandir(folder) as entries:
        return deque(entry.name for entry in entries if entry.name.endswith(".message"))


def first_of(folder: str) -> str:
    unfinished[folder] = messages(folder)
    return unfinished[folder].popleft()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="casebook-") as folder:
        for number in range(3):
            open(os.path.join(folder, f"{number}.message"), "w").close()
        for _request in requests(per_second=8):
            first_of(folder)


if __name__ == "__main__":
    main()
