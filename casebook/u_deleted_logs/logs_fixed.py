"""The logs put right: a handler is closed before its file is shipped, and one logger serves all batches."""

from __future__ import annotations

import logging
import os
import tempfile

from casebook.pace import requests

logger = logging.getLogger("batch")


def log_of(batch: int, folder: str) -> str:
    path = os.path.join(folder, f"batch-{batch}.log")
    handler = logging.FileHandler(path)
    logger.addHandler(handler)
    try:
        logger.warning("%s", "one line of many" * 1000)
    finally:
        logger.removeHandler(handler)
        handler.close()
    return path


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="casebook-") as folder:
        for batch in requests(per_second=8):
            os.unlink(log_of(batch, folder))  # shipped


if __name__ == "__main__":
    main()
