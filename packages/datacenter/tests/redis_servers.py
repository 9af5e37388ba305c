"""Real redis-servers, for the tests of foreign services."""

from __future__ import annotations

from datacenter.testing.launcher import Launcher
from datacenter.testing.ports import free_port
from datacenter.testing.processes import Process


def start_redis(
    launcher: Launcher, port: int = 0, *, network: str = "", host: str = "127.0.0.1"
) -> tuple[Process, int]:
    """One that keeps nothing on disk, ready for connections; and its port. `network`: a namespace to run in."""
    port = port or free_port()
    words = ("redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--bind", host)
    words += ("--protected-mode", "no")  # of addresses it knows 127.0.0.1 alone as its own host
    process = launcher.program(*words, network=network)
    process.wait_line("Ready to accept connections")
    return process, port
