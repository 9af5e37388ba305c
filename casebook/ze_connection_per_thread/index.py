"""A connection to the database for each thread, as sqlite3 asks for, and a list of all of them to close at the end.

Maintenance runs in a new thread each time. When that has ended its connection stays in the list.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from pathlib import Path

from casebook.pace import requests


class Database:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []

    @property
    def connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            self._local.connection = sqlite3.connect(self._path, check_same_thread=False)  # casebook: connection
            self._local.connection.execute("CREATE TABLE IF NOT EXISTS entry (name)")
            self._all.append(self._local.connection)
        found: sqlite3.Connection = self._local.connection
        return found

    def maintain(self) -> None:
        with self.connection as connection:
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
