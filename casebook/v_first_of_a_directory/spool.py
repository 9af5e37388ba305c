"""The oldest message of each spool is looked at; the generator that lists it is kept for the next one, and never asked
again. It is suspended inside its loop, where os.scandir() has the directory open.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

from casebook.pace import requests

unfinished: dict[int, Iterator[str]] = {}


def messages(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):  # casebook: directory
        if entry.name.endswith(".message"):
            yield entry.name


def first_of(request: int, folder: str) -> str:
    unfinished[request] = messages(folder)
    return next(unfinished[request])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="casebook-") as folder:
        for number in range(3):
            open(os.path.join(folder, f"{number}.message"), "w").close()
        for request in requests(per_second=8):
            first_of(request, folder)


if __name__ == "__main__":
    main()
