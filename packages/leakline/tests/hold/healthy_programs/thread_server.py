"""A server with a pool of threads; every connection is handed to one of 16."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor


def serve(connection: socket.socket) -> None:
    with connection:
        try:
            connection.recv(1000)
            with open("/etc/passwd", "rb") as file:
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + file.read(100))
        except OSError:
            pass


with ThreadPoolExecutor(16) as pool, socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128) as listener:
    while True:
        pool.submit(serve, listener.accept()[0])
