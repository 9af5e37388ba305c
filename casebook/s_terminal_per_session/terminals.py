"""A web terminal: a pty for each session. When its program has ended, the reader is removed; the pty stays."""

from __future__ import annotations

import os
import pty
import selectors
import subprocess

from casebook.pace import requests

selector = selectors.DefaultSelector()


def session(command: list[str]) -> bytes:
    terminal, side_of_child = pty.openpty()  # casebook: terminal
    child = subprocess.Popen(command, stdin=side_of_child, stdout=side_of_child, stderr=side_of_child)
    os.close(side_of_child)
    selector.register(terminal, selectors.EVENT_READ)
    screen = b""
    while child.poll() is None or selector.select(0.0):
        try:
            screen += os.read(terminal, 4096) if selector.select(0.1) else b""
        except OSError:  # EIO: the last process of the session has gone
            break
    selector.unregister(terminal)
    child.wait()
    return screen


def main() -> None:
    for _request in requests(per_second=8):
        session(["echo", "$ _"])


if __name__ == "__main__":
    main()
