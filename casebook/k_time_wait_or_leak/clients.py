"""Clients that connect, ask once and stay connected, as phones behind a carrier's NAT do.

python clients.py PORT CLIENTS_PER_SECOND
"""

from __future__ import annotations

import select
import socket
import sys

from casebook.pace import requests


def main() -> None:
    open_ones: list[socket.socket] = []
    for client in requests(per_second=float(sys.argv[2]), ready="", while_parent=True):
        connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5.0)
        connection.sendall(b"%d\n" % client)
        open_ones.append(connection)
        ended, _, _ = select.select(open_ones, [], [], 0.0)
        for each in ended:
            if not each.recv(4096):  # the server has closed it
                open_ones.remove(each)
                each.close()


if __name__ == "__main__":
    main()
