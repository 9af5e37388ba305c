"""Peers that subscribe and then only listen: `python phones.py PORT COUNT`, until they are killed."""

from __future__ import annotations

import select
import socket
import sys

from casebook.pace import SECONDS


def main() -> None:
    phones = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5.0) for _phone in range(int(sys.argv[2]))]
    print("subscribed", flush=True)
    select.select([], [], phones, SECONDS)


if __name__ == "__main__":
    main()
