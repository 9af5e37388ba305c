"""Incident I: a master connects to its ZooKeeper clusters, then forks its worker. It inherits each connection, and the
port, and never looks at them.

    python master.py sharing|left HOSTS

sharing: the master goes on; left: it ends its sessions and takes its port anew.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress

from casebook.pace import SECONDS
from kazoo.client import KazooClient

CLUSTERS = 12


def connect(hosts: str) -> list[KazooClient]:
    clients = [KazooClient(hosts=hosts, timeout=30.0) for _cluster in range(CLUSTERS)]
    for client in clients:
        client.start(timeout=30.0)
    return clients


def fork_worker() -> int:
    worker = os.fork()
    if worker == 0:
        time.sleep(SECONDS)  # its work, which has nothing to do with ZooKeeper
        os._exit(0)
    return worker


def leave(clients: list[KazooClient], listener: socket.socket) -> socket.socket:
    """Ends the sessions, gives the port back and takes it again, as a master does that is given a new configuration."""
    for client in clients:
        client.stop()
        client.close()
    address = listener.getsockname()
    listener.close()
    try:
        return socket.create_server(address)
    except OSError as error:
        print(f"master: port {address[1]}: {error}", file=sys.stderr)
        return socket.create_server((address[0], 0))


def serve(listener: socket.socket) -> None:
    listener.settimeout(SECONDS)
    with suppress(TimeoutError):
        while True:
            with listener.accept()[0] as connection:
                connection.sendall(b"the master is well\n")


def main() -> None:
    mode, hosts = sys.argv[1:]
    clients = connect(hosts)
    listener = socket.create_server(("127.0.0.1", 0))
    worker = fork_worker()
    if mode == "left":
        listener = leave(clients, listener)
    print(f"ready {worker}", flush=True)
    serve(listener)


if __name__ == "__main__":
    main()
