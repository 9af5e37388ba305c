"""A web application with a thread a request and a connection to SQLite in each; a row is written in every fifth."""

import sqlite3
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATABASE = sys.argv[2]


class App(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with closing(sqlite3.connect(DATABASE, timeout=30)) as database:
            (count,) = database.execute("select count(*) from visits").fetchone()
            if hash(self.client_address) % 5 == 0:
                with database:
                    database.execute("insert into visits values (?)", (str(self.client_address),))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{count}\n".encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


with closing(sqlite3.connect(DATABASE)) as made:
    made.execute("pragma journal_mode = wal")
    made.execute("create table if not exists visits (who text)")
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
