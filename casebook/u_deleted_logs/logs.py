"""A log file for each batch, deleted when it has been shipped. Loggers live as long as the process, and their handlers
with them: each keeps its deleted file open, and the disk space of it.
"""

from __future__ import annotations

import logging
import os
import tempfile

from casebook.pace import requests


def log_of(batch: int, folder: str) -> str:
    path = os.path.join(folder, f"batch-{batch}.log")
    logger = logging.getLogger(f"batch.{batch}")
    logger.addHandler(logging.FileHandler(path))  # casebook: file
    logger.warning("%s", "one line of many" * 1000)
    return path


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="casebook-") as folder:
        for batch in requests(per_second=8):
            os.unlink(log_of(batch, folder))  # shipped


if __name__ == "__main__":
    main()
