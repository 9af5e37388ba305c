"""Incident G: a relay is to end when its last client has left. A failed handshake takes the count below zero for ever.

    python -m casebook.g_count_never_zero.broken

The count goes up at HANDSHAKE_SUCCEEDED and down at DISCONNECTED. A health check that connects and hangs up is a
DISCONNECTED without the other. After it the count of a relay is −1, the client's coming makes it 0, its leaving −1: it
is never 0 when somebody leaves, and the relay stays.
"""

from __future__ import annotations

import socket as sockets
import time

import zmq
from casebook.nearby import Context, address, paced, ready
from zmq.utils.monitor import recv_monitor_message

PER_S = 2
EVENTS_WITHIN_S = 1.0


class Relay:
    """Listens at a port of its own, and knows how many clients it has."""

    def __init__(self, context: Context, name: str) -> None:
        self.socket = context.socket(zmq.ROUTER)  # casebook: leaks
        self.socket.linger = 0
        self.reader = context.socket(zmq.PAIR)
        self.socket.monitor(f"inproc://{name}", zmq.EVENT_ALL)
        self.reader.connect(f"inproc://{name}")
        self.socket.bind("tcp://127.0.0.1:*")
        self.endpoint = address(self.socket)
        self.clients = 0
        self.disconnected = 0

    def read_events(self) -> None:
        """What the monitor has to say now."""
        while not self.reader.closed and self.reader.poll(0):
            event = recv_monitor_message(self.reader)
            self.disconnected += event["event"] == zmq.EVENT_DISCONNECTED
            self.count(event["event"], event["value"])

    def count(self, event: int, value: int) -> None:
        """Somebody came, or left."""
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.clients += 1
        elif event == zmq.EVENT_DISCONNECTED:
            self.clients -= 1
            if self.clients == 0:
                self.end()

    def end(self) -> None:
        """Stops the monitor while it can be read, then closes all."""
        self.socket.disable_monitor()
        self.reader.close()
        self.socket.close()


class Manager:
    """Makes a relay for each service that is asked for; each ends itself."""

    def __init__(self, relay_type: type[Relay]) -> None:
        self.context: Context = zmq.Context()
        self.relay_type = relay_type
        self.relays: list[Relay] = []

    def relay(self, name: str) -> Relay:
        """A new one."""
        self.relays = [relay for relay in self.relays if not relay.socket.closed]
        self.relays.append(self.relay_type(self.context, name))
        return self.relays[-1]


def health_check(relay: Relay) -> None:
    """Is somebody listening? Connects, and hangs up."""
    host, port = relay.endpoint.removeprefix("tcp://").split(":")
    sockets.create_connection((host, int(port))).close()
    _read_until_left(relay, 1)


def client(context: Context, relay: Relay) -> None:
    """Comes, says something, and leaves."""
    with context.socket(zmq.DEALER) as socket:
        socket.connect(relay.endpoint)
        socket.send(b"hello")
        relay.socket.recv_multipart()
    _read_until_left(relay, 2)


def _read_until_left(relay: Relay, times: int) -> None:
    end = time.monotonic() + EVENTS_WITHIN_S
    while not relay.socket.closed and relay.disconnected < times and time.monotonic() < end:
        relay.read_events()
        time.sleep(0.001)


def main(relay_type: type[Relay] = Relay) -> None:
    manager, clients = Manager(relay_type), zmq.Context[zmq.Socket[bytes]]()
    ready()
    for number in paced(PER_S):
        relay = manager.relay(f"service-{number}")
        health_check(relay)
        client(clients, relay)


if __name__ == "__main__":
    main()
