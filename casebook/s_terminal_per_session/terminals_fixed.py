"""The web terminal put right: whoever opened the pty closes it when the session ends, however it ends."""

from __future__ import annotations

import os
import pty
import selectors
import subprocess

from casebook.pace import requests

selector = selectors.DefaultSelector()


def session(command: list[str]) -> bytes:
    terminal, side_of_child = pty.openpty()
    try:
        child = subprocess.Popen(command, stdin=side_of_child, stdout=side_of_child, stderr=side_of_child)
    finally:
        os.close(side_of_child)
    with open(terminal, "rb", buffering=0) as master, child:
        return _screen(master.fileno(), child)


def _screen(terminal: int, child: subprocess.Popen[bytes]) -> bytes:
    screen = b""
    selector.register(terminal, selectors.EVENT_READ)
    try:
        while child.poll() is None or selector.select(0.0):
            screen += os.read(terminal, 4096) if selector.select(0.1) else b""
    except OSError:  # EIO: the last process of the session has gone
        pass
    finally:
        selector.unregister(terminal)
    return screen


def main() -> None:
    for _request in requests(per_second=8):
        session(["echo", "$ _"])


if __name__ == "__main__":
    main()
