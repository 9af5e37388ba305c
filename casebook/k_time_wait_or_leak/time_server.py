"""A server that answers each line of a connection with a line, for as long as the client likes. Prints its port."""

from __future__ import annotations

import socketserver
import threading


class Answers(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"at your service: " + line)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    with Server(("127.0.0.1", 0), Answers) as server:
        threading.Timer(180, server.shutdown).start()
        print(f"ready {server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
