"""Hosts in namespaces: packets come late in bad weather, not at all when a host is cut off, and again afterwards."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from datacenter.testing import Launcher
from datacenter.testing.hosts import Hosts

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root"),
]

LISTENER = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("listening", flush=True)
    while True:
        server.accept()[0].close()
"""
ASKER = """
import socket, sys, time
for line in sys.stdin:
    began = time.monotonic()
    try:
        socket.create_connection((sys.argv[1], 7000), timeout=float(line)).close()
        print(f"connected {time.monotonic() - began:.4f}", flush=True)
    except TimeoutError:
        print("silence", flush=True)
"""
DELAY_S = 0.1


def test_delay_and_cuts_are_felt_and_end(tmp_path: Path) -> None:
    with Hosts(["left", "right"]) as hosts, Launcher(cwd=tmp_path) as launch:
        listener = launch.python("-c", LISTENER, hosts.address("left"), network=hosts.network("left"))
        listener.wait_line("listening")
        asker = launch.python("-c", ASKER, hosts.address("left"), network=hosts.network("right"))

        def ask(timeout_s: float) -> str:
            seen = len(asker.lines)
            asker.tell(str(timeout_s))
            return asker.wait_line("(connected|silence).*", after=seen)[1][0]

        assert ask(20).startswith("connected")
        hosts.weather(delay_s=DELAY_S)
        assert float(ask(20).split()[1]) >= 2 * DELAY_S
        hosts.weather()
        hosts.cut("left")
        began = time.monotonic()
        assert ask(0.3) == "silence"
        assert time.monotonic() - began >= 0.3
        hosts.mend("left")
        assert ask(20).startswith("connected")
        assert hosts.dropped > 0
    assert not [name for name in os.listdir("/run/netns") if name.startswith(f"datacenter-{os.getpid()}-")]
