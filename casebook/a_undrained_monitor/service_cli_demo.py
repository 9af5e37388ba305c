"""Incident A as it was written: a client in plain pyzmq that works for weeks, until its server is away for long.

    python service_cli_demo.py tcp://127.0.0.1:7700 greeter.hello [RECONNECT_MS]

It asks the datacenter for the service's port before each call, with a socket of its own for each question, calls the
service over one long-lived socket, and watches that socket's connection through a monitor. Each part follows a
textbook. A restart of the service that takes a few seconds does it no harm; an outage of more than ten does (at a
RECONNECT_MS of 1: of more than one). See README.md beside this file; service_cli_fixed.py has the lines to change.

It prints one JSON line a second: sockets it has closed, questions and calls that were answered, eventfds it holds.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

DESCRIPTOR_LIMIT = 1024  # what a shell or a service manager gives by default
RECONNECT_IVL_MS = 10
ANSWER_TIMEOUT_MS = 15
DRAIN_EVERY_S = 0.02
CALLS_PER_S = 32.0
REPORT_EVERY_S = 1.0

# Messages of the datacenter: one MessagePack array a frame, the first item says which.
HELLO, RESOLVE, WELCOME, RESOLVED, CALL, RESULT = 1, 6, 1, 6, 1, 1
pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


class Timer:
    """Calls `function` every `every_s` seconds while it is started. The main loop lets it run."""

    def __init__(self, every_s: float, function: Callable[[], None]) -> None:
        self.every_s = every_s
        self.function = function
        self.due: float | None = None

    def start(self) -> None:
        self.due = time.monotonic()

    def cancel(self) -> None:
        self.due = None

    def run(self) -> None:
        if self.due is not None and time.monotonic() >= self.due:
            self.due = time.monotonic() + self.every_s
            self.function()


class ServerPort(NamedTuple):
    """Which process serves, and where."""

    instance: str
    endpoint: str


class ServiceClient:
    """Calls one method of one service."""

    def __init__(self, broker: str, target: str, reconnect_ivl_ms: str = str(RECONNECT_IVL_MS)) -> None:
        self.broker = broker
        self.service, self.method = target.split(".")
        self.server: ServerPort | None = None
        self.sockets_closed = self.questions_answered = self.calls_answered = self.calls_sent = 0
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.reconnect_ivl = int(reconnect_ivl_ms)
        self.monitor = self.socket.get_monitor_socket()
        self.monitor_timer = Timer(DRAIN_EVERY_S, self.drain_monitor)

    def qry_server_port(self) -> ServerPort | None:
        """Asks the datacenter which port the service has. None: it is away, or there was no answer in time."""
        query = self.context.socket(zmq.DEALER)  # casebook: leaks
        query.linger = 0
        query.rcvtimeo = ANSWER_TIMEOUT_MS
        try:
            query.connect(self.broker)
            query.send(pack([HELLO, 1, "0.1.0", os.getpid(), "localhost", "service_cli_demo"]))
            query.send(pack([RESOLVE, 1, self.service, "rpc", False]))
            instances = self._answer(query)
        except zmq.Again:
            return None
        finally:
            query.close()
            self.sockets_closed += 1
        self.questions_answered += 1
        return ServerPort(instances[0][0], instances[0][1]) if instances else None

    @staticmethod
    def _answer(query: zmq.Socket[bytes]) -> list[Any]:
        answer: list[Any] = unpack(query.recv())
        while answer[0] != RESOLVED:
            answer = unpack(query.recv())
        _name, _type, _state, _version, instances, *_ = answer[2]  # messages grow at their end
        return list(instances)

    def call(self, *arguments: object) -> None:
        """Sends a call to where the service is now. Its reply is counted when it has come."""
        server = self.qry_server_port()
        if server is None:
            return
        if server != self.server:
            self.connect(server)
        self.calls_sent += 1
        with suppress(zmq.Again):
            self.socket.send(pack([CALL, self.calls_sent, self.service, self.method, 1000, arguments]), zmq.NOBLOCK)

    def connect(self, server: ServerPort) -> None:
        """Turns to the process that serves now, and watches the connection to it."""
        if self.server is not None:
            self.socket.disconnect(self.server.endpoint)
        self.socket.connect(server.endpoint)
        self.server = server
        self.monitor_timer.start()

    def drain_monitor(self) -> None:
        """Reads what the monitor has to say."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)
            if event["event"] == zmq.EVENT_DISCONNECTED:
                # The server is away: nothing will happen on this connection until the next connect().
                self.monitor_timer.cancel()

    def read_replies(self) -> None:
        """Counts the replies that have come."""
        while self.socket.poll(0):
            self.calls_answered += unpack(self.socket.recv())[0] == RESULT


def eventfds() -> int:
    """The eventfds of this process, counted without opening anything: there may be no descriptor left for it."""
    count = 0
    for number in range(DESCRIPTOR_LIMIT):
        with suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[eventfd]"
    return count


def report(client: ServiceClient, began: float) -> None:
    """One line of figures on stdout."""
    figures = {
        "t": round(time.monotonic() - began, 3),
        "closed": client.sockets_closed,
        "answered": client.questions_answered,
        "calls": client.calls_answered,
        "eventfds": eventfds(),
    }
    print(json.dumps(figures), flush=True)


def run(client: ServiceClient) -> None:
    """Calls the service at a steady pace, for ever."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTOR_LIMIT, hard))
    due = began = time.monotonic()
    report_timer = Timer(REPORT_EVERY_S, lambda: report(client, began))
    report_timer.start()
    while True:
        client.monitor_timer.run()
        report_timer.run()
        client.call("Ann")
        client.read_replies()
        due += 1 / CALLS_PER_S
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    run(ServiceClient(*sys.argv[1:]))
