"""The experiment that the engineers of incident A made: which treatment of the monitor helps, how long, at what price?

    python casebook/a_undrained_monitor/experiment.py [SECONDS]

Each treatment is a process of its own, whose server is away; leakline observes all of them at once. At the end the
server comes back. One table on stdout; SECONDS (60 by default) is how long each is observed.
"""

from __future__ import annotations

import json
import socket as sockets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the casebook is imported from the root of the repository
    sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec
from casebook.a_undrained_monitor.experiment_client import Treatment
from casebook.nearby import answering_server
from casebook.runner.expectation import REPOSITORY

from datacenter.testing import Process, free_port
from leakline.observe import STEP_S, Observation

CLIENT = Path(__file__).with_name("experiment_client.py")
SECONDS = 60.0
RETURN_S = 3.0  # the server is back for so long
BLOCKED_S = 1.0

TREATMENTS = (
    ("as written: buffer 1 000", Treatment(), False),
    ("buffer 10 000", Treatment(reader_hwm=10_000), False),
    ("buffer 100 000", Treatment(reader_hwm=100_000), False),
    ("buffer without end", Treatment(reader_hwm=0), False),
    ("retries filtered out", Treatment(filtered=True), False),
    ("filtered, peer hangs up", Treatment(filtered=True), True),
    ("one socket for questions", Treatment(resident=True), False),
    ("own context for questions", Treatment(own_context=True), False),
    ("drained", Treatment(drained=True), False),
    ("drained, peer hangs up", Treatment(drained=True), True),
)
# buffer: RCVHWM of the reader. answered: questions, at the end of the outage. calls: when the server is back.
_HEAD = ("treatment", "blocked after", "eventfds", "answered", "calls", "memory")


class Row(msgspec.Struct):
    """One treatment while it runs. Times in seconds since the client began."""

    name: str
    process: Process
    observation: Observation
    port: int
    began: float = 0.0
    blocked_at: float | None = None

    def begin(self) -> None:
        """Its server is away from now on."""
        self.process.tell("")
        self.began = time.monotonic()

    def look(self) -> None:
        """One look from outside."""
        self.observation.step()
        if self.blocked_at is None:
            standing = [thread.seconds for thread in self.observation.threads() if thread.seconds > BLOCKED_S]
            if standing:
                self.blocked_at = time.monotonic() - self.began - max(standing)

    def figures(self) -> list[dict[str, Any]]:
        """What the client has reported, oldest first."""
        return [json.loads(line) for _, line in self.process.lines[1:]]


@contextmanager
def hanging_up(port: int) -> Iterator[None]:
    """A peer that accepts and hangs up, as a proxy does whose service is away."""
    listener = sockets.create_server(("127.0.0.1", port))
    listener.settimeout(0.1)
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            try:
                listener.accept()[0].close()
            except TimeoutError:
                continue

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        listener.close()


def main(seconds: float) -> None:
    with ExitStack() as ends, ExitStack() as peers:
        datacenter = answering_server()
        rows = [_start(ends, peers, datacenter, *treatment) for treatment in TREATMENTS]
        for row in rows:
            row.begin()
        _look(rows, seconds)
        leaks = [row.observation.growth().rates().get("eventfd", 0.0) for row in rows]
        before = [row.figures() for row in rows]
        peers.close()
        for row in rows:
            answering_server(f"tcp://127.0.0.1:{row.port}")
        _look(rows, RETURN_S)
        table = [_HEAD, *(_cells(row, leak, past) for row, leak, past in zip(rows, leaks, before, strict=True))]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(_HEAD))]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _start(ends: ExitStack, peers: ExitStack, datacenter: str, name: str, treatment: Treatment, hangs_up: bool) -> Row:
    port = free_port()
    if hangs_up:
        peers.enter_context(hanging_up(port))
    server, how = f"tcp://127.0.0.1:{port}", msgspec.json.encode(treatment).decode()
    words = [sys.executable, str(CLIENT), server, datacenter, how]
    process = Process(words, environment={"PYTHONPATH": str(REPOSITORY)})
    ends.callback(process.release)
    process.wait_line("waits")
    return Row(name, process, Observation(process.pid, window=3600.0), port)


def _look(rows: list[Row], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for row in rows:
            row.look()
        time.sleep(STEP_S)


def _cells(row: Row, leak: float, past: list[dict[str, Any]]) -> tuple[str, ...]:
    now = row.figures()[-1]
    last, earlier = past[-1], past[max(0, len(past) - 1 - int(5 / 0.25))]  # the last five seconds of the outage
    answered = (last["answered"] - earlier["answered"]) / max(1, last["asked"] - earlier["asked"])
    memory = (last["memory"] - earlier["memory"]) / (last["t"] - earlier["t"]) / 1024
    return (
        row.name,
        f"{row.blocked_at:.1f} s" if row.blocked_at is not None else f"not in {last['t']:.0f} s",
        f"+{leak:.0f}/s" if leak else "steady",
        f"{answered:.0%}",
        "again" if now["calls"] > last["calls"] else "never",
        f"{memory:+.0f} KiB/s",
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
