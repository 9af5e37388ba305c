"""What tests of prefork families look at: who is there, who is registered, who is connected to what."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from datacenter.testing import Launcher, RunningBroker, RunningService, named
from leakline import proc

DEADLINE_S = 30.0
WORKERS = ("worker-1", "worker-2")


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"did not happen within {deadline_s} s: {what}")
        time.sleep(0.01)


def pid_of(family: RunningService, name: str) -> int:
    """Of the only process with this name, as soon as there is one."""
    until(lambda: named(family.pid, name), f"there is one {name}")
    return named(family.pid, name)


def registered(broker: RunningBroker, launch: Launcher) -> set[int]:
    """The pids of the instances in the registry."""
    listing = launch.command("ls", "--json", "--broker", broker.address)
    _, found = listing.wait_line("^{.*}$")
    launch.release(listing)
    return {instance["pid"] for service in json.loads(found[0])["services"] for instance in service["instances"]}


def to_broker(pid: int, broker: RunningBroker) -> int:
    """How many connections a process has to the broker."""
    port = int(broker.address.rpartition(":")[2])
    sockets = (descriptor.socket for descriptor in proc.snapshot(pid).descriptors)
    return sum(socket is not None and socket.remote is not None and socket.remote.port == port for socket in sockets)


def gone(pids: list[int]) -> bool:
    """Whether none of them lives (a zombie does not)."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX":
                return False
    return True
