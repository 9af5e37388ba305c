"""Real redis-servers, for the tests of foreign services."""

from __future__ import annotations

from datacenter.testing.launcher import Launcher
from datacenter.testing.ports import free_port
from datacenter.testing.processes import Process


def start_redis(launcher: Launcher, port: int = 0) -> tuple[Process, int]:
    """One that keeps nothing on disk, ready for connections; and its port."""
    port = port or free_port()
    words = ("redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1")
    process = launcher.program(*words)
    process.wait_line("Ready to accept connections")
    return process, port
