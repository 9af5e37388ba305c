"""One client of the experiment of incident A: how it treats its monitor and its questions is given as JSON.

    python experiment_client.py SERVER DATACENTER '{"reader_hwm": 10000, "resident": true}'

Begins at a line on stdin, and prints a JSON line four times a second: questions asked and answered, calls answered,
resident memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import Any

import msgspec
import zmq
from casebook.nearby import Context, Socket

PER_S = 40
ANSWER_MS = 15
REPORT_EVERY_S = 0.25
#: what a mask leaves out that is to keep the retries out of the monitor
RETRIES = zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CLOSED


class Treatment(msgspec.Struct, frozen=True):
    """What is done differently from the client as it was written."""

    reader_hwm: int = 1000
    filtered: bool = False
    resident: bool = False  # one socket for all questions
    own_context: bool = False  # for the questions
    drained: bool = False
    reconnect_ms: int = 1


class Client:
    """Calls a server over a watched session, and asks the datacenter where it is."""

    def __init__(self, datacenter: str, treatment: Treatment) -> None:
        self.treatment = treatment
        self.datacenter = datacenter
        self.context: Context = zmq.Context()
        self.session = self.context.socket(zmq.DEALER)
        self.session.linger = 0
        self.session.reconnect_ivl = treatment.reconnect_ms
        self.reader = self.context.socket(zmq.PAIR)
        self.reader.rcvhwm = treatment.reader_hwm
        self.session.monitor("inproc://events", zmq.EVENT_ALL & ~(RETRIES if treatment.filtered else 0))
        self.reader.connect("inproc://events")
        self.questions: Context = zmq.Context() if treatment.own_context else self.context
        self.resident = self.question() if treatment.resident else None
        self.asked = self.answered = self.calls = 0

    def question(self) -> Socket:
        """A socket that is connected to the datacenter."""
        socket = self.questions.socket(zmq.DEALER)
        socket.linger = 0
        socket.rcvtimeo = ANSWER_MS
        socket.connect(self.datacenter)
        return socket

    def ask(self) -> None:
        """One question; an answer that is late is not counted."""
        self.asked += 1
        number = str(self.asked).encode()
        socket = self.resident or self.question()
        with suppress(zmq.Again):
            socket.send(number, zmq.NOBLOCK)
            while socket.recv() != number:
                pass
            self.answered += 1
        if socket is not self.resident:
            socket.close()

    def step(self) -> None:
        """One turn of the program's loop."""
        self.ask()
        with suppress(zmq.Again):
            self.session.send(b"call", zmq.NOBLOCK)
        while self.session.poll(0):
            self.session.recv()
            self.calls += 1
        while self.treatment.drained and self.reader.poll(0):
            self.reader.recv_multipart()


def report(client: Client, began: float) -> None:
    """One line of figures on stdout."""
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    at = round(time.monotonic() - began, 3)
    figures: dict[str, Any] = {"t": at, "asked": client.asked, "answered": client.answered, "calls": client.calls}
    print(json.dumps({**figures, "memory": memory}), flush=True)


def main(server: str, datacenter: str, treatment: str) -> None:
    client = Client(datacenter, msgspec.json.decode(treatment, type=Treatment))
    print("waits", flush=True)
    sys.stdin.readline()
    client.session.connect(server)
    began = due = reported = time.monotonic()
    while True:
        client.step()
        if time.monotonic() - reported > REPORT_EVERY_S:
            reported = time.monotonic()
            report(client, began)
        due = max(due + 1 / PER_S, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
