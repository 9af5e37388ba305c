"""The database put right: whoever needs a connection takes one and closes it in the same block."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from casebook.pace import requests


class Database:
    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS entry (name)")
            yield connection

    def maintain(self) -> None:
        with self.connection() as connection:
            connection.execute("SELECT count(*) FROM entry").fetchone()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="casebook-") as folder:
        database = Database(Path(folder) / "index.db")
        for _request in requests(per_second=8):
            thread = threading.Thread(target=database.maintain)
            thread.start()
            thread.join()


if __name__ == "__main__":
    main()
