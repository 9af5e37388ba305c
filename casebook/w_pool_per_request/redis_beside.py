"""Starts a real redis-server, at its own port if that is free; prints the port. It ends when this program does."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress


def free_port() -> int:
    """6379 if nobody has it (leakline then names the service), else any."""
    for port in (6379, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as there:
            return int(there.getsockname()[1])
    raise OSError("no free port")


def main() -> None:
    port = free_port()
    words = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen([*words, "--logfile", "/dev/null"], preexec_fn=die_with_parent) as server:
        end = time.monotonic() + 20
        while time.monotonic() < end and server.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                print(f"ready {port}", flush=True)
                break
            time.sleep(0.02)
        server.wait(180)


def die_with_parent() -> None:
    """PR_SET_PDEATHSIG (1): whoever starts this program ends it by SIGKILL, and that must end the server, too."""
    import ctypes

    ctypes.CDLL(None).prctl(1, 9)


if __name__ == "__main__":
    main()
