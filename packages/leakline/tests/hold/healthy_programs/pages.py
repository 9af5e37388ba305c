"""The web server of the page that the browser shows: the page itself at /, a few bytes anywhere else."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = Path(__file__).with_name("page.html").read_bytes() if self.path == "/" else b"text"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Quiet."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Pages).serve_forever()
