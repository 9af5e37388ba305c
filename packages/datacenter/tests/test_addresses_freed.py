"""After close() its address can be bound again, however late libzmq's threads get to run.

libzmq closes what listens in its I/O thread, after its reaper has told it to. Both are given the least share of a busy
processor here: without the waiting in close(), nearly every round finds the address taken.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from datacenter import Broker, Server, Service

ROUNDS = 5


def name_of(task: Path) -> str:
    """A thread's name; "" if it has ended since it was listed, as those that close something do."""
    try:
        return (task / "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextlib.contextmanager
def slow_threads(name: str) -> Iterator[None]:
    """The threads of this process with that name share one processor with a busy process, at the lowest weight."""
    processor = min(os.sched_getaffinity(0))
    slowed = [task for task in Path("/proc/self/task").iterdir() if name_of(task) == name]
    assert slowed, "libzmq's threads are known by this name"
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        os.sched_setaffinity(busy.pid, {processor})
        try:
            for task in slowed:
                os.sched_setaffinity(int(task.name), {processor})
                os.setpriority(os.PRIO_PROCESS, int(task.name), 19)
            yield
        finally:
            busy.kill()


async def a_broker(_: Broker, address: str) -> Broker | Server:
    made = Broker(address)
    made.start()
    return made


async def a_service(broker: Broker, address: str) -> Broker | Server:
    made = Server(Service("freed"), broker=broker.endpoint, listen=address)
    made.start()
    return made


@pytest.mark.parametrize("thread", ["ZMQbg/Reaper", "ZMQbg/IO/0"])
@pytest.mark.parametrize("make", [a_broker, a_service])
async def test_the_address_is_free_when_close_returns(
    broker: Broker, thread: str, make: Callable[[Broker, str], Awaitable[Broker | Server]]
) -> None:
    first = await make(broker, "tcp://127.0.0.1:0")
    address = first.endpoint
    await first.close()
    with slow_threads(thread):
        for _ in range(ROUNDS):
            again = await make(broker, address)
            await again.close()
