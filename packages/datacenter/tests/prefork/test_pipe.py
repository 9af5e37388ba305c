"""A pipe between two processes, here in one: messages, the end of the other side, one that does not read, garbage."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from datacenter.prefork import messages, pipe
from datacenter.prefork.fork_link import pair
from datacenter.prefork.framing import framed
from datacenter.prefork.pipe import Pipe
from datacenter.sockets.ledger import Ledger

Until = Callable[[Callable[[], object], str], Awaitable[None]]


class End:
    """One end, and what it heard."""

    def __init__(self, end: socket.socket, ledger: Ledger) -> None:
        self.heard: list[Any] = []
        self.ended = 0
        self.pipe = Pipe(end, messages.from_worker, self.heard.append, self._end, ledger=ledger, owner="the other end")

    def _end(self) -> None:
        self.ended += 1


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger.open()
    yield made
    made.close()


@pytest.fixture
async def ends(ledger: Ledger) -> Any:
    """Ours, and the bare socket at the other side."""
    ours, theirs = pair()
    end = End(ours, ledger)
    yield end, theirs
    end.pipe.close()
    theirs.close()


async def test_what_was_said_before_the_end_is_heard_and_the_end_once(
    ends: tuple[End, socket.socket], until: Until, ledger: Ledger
) -> None:
    end, theirs = ends
    said = [messages.Started(4711), messages.Statistics({"calls": 5}), messages.Alive()]
    theirs.sendall(b"".join(framed(messages.encode(message)) for message in said))
    theirs.close()
    await until(lambda: end.ended, "the end is told")
    assert end.heard == said
    assert end.ended == 1
    end.pipe.send(messages.Alive())
    assert end.pipe.closed
    assert not [entry for entry in ledger.entries() if entry.owner == "the other end"]


async def test_one_that_does_not_read_is_given_up_at_the_bound(
    ends: tuple[End, socket.socket], until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipe, "MAX_UNSENT_BYTES", 100_000)
    end, _ = ends
    sent = 0
    while not end.pipe.closed:
        end.pipe.send(messages.Statistics({"x" * 1000: sent}))
        sent += 1
        assert sent < 100_000
    assert end.ended == 1
    assert "does not read what it is told" in caplog.text


async def test_what_did_not_fit_at_once_arrives_in_order(ends: tuple[End, socket.socket], until: Until) -> None:
    end, theirs = ends
    other = End(theirs.dup(), end.pipe._ledger)
    for number in range(2000):
        end.pipe.send(messages.Statistics({"x" * 1000: number}))
    await end.pipe.flush(20.0)
    await until(lambda: len(other.heard) == 2000, "all have arrived")
    assert [message.counts["x" * 1000] for message in other.heard] == list(range(2000))
    other.pipe.close()


@pytest.mark.parametrize("garbage", [b"\xff" * 100, framed(b"\xc1"), framed(messages.encode(messages.End()))])
async def test_garbage_ends_the_pipe(ends: tuple[End, socket.socket], until: Until, garbage: bytes) -> None:
    end, theirs = ends
    theirs.sendall(garbage)
    await until(lambda: end.ended, "the pipe is closed")
    assert end.heard == []


async def test_a_flush_to_one_that_does_not_read_is_bounded(ends: tuple[End, socket.socket]) -> None:
    end, _ = ends
    for number in range(2000):
        end.pipe.send(messages.Statistics({"x" * 1000: number}))
    began = asyncio.get_running_loop().time()
    await end.pipe.flush(0.05)
    assert asyncio.get_running_loop().time() - began >= 0.05
    assert not end.pipe.closed


def test_a_thread_that_runs_before_the_fork_is_warned_of() -> None:
    program = (
        "import threading\n"
        "from datacenter.prefork.surroundings import strange_threads\n"
        "print(strange_threads())\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print(strange_threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    alone, warned = done.stdout.splitlines()
    assert alone == "()"
    assert "started 1 thread(s)" in warned
