"""Incident F: two clients ask for the same service at the same moment, and two relays are made. One is overwritten.

    python -m casebook.f_created_twice.broken

The manager looks whether there is a relay of that name, makes one if not, and notes it. Between the look and the note
lies a question to another process: time enough for a second thread to look. Destroying the service ends the relay that
was noted last; the other goes on serving a port that nobody knows.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import zmq
from casebook.nearby import Context, paced, ready

PER_S = 5
DIRECTORY_ANSWERS_S = 0.002


class Relay:
    """Listens at a port of its own."""

    def __init__(self, context: Context) -> None:
        time.sleep(DIRECTORY_ANSWERS_S)  # which type the service has is asked elsewhere
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind("tcp://127.0.0.1:*")  # casebook: listens


class Manager:
    """The relays by the names of their services, and one loop that serves all."""

    def __init__(self) -> None:
        self.context: Context = zmq.Context()
        self.relays: dict[str, Relay] = {}
        self.poller = zmq.Poller()

    def relay(self, name: str) -> Relay:
        """The relay of a service. Made for the first who asks."""
        if name not in self.relays:
            relay = Relay(self.context)
            self.poller.register(relay.socket, zmq.POLLIN)
            self.relays[name] = relay
        return self.relays[name]

    def destroy(self, name: str) -> None:
        """Nobody uses the service any more."""
        relay = self.relays.pop(name)
        self.poller.unregister(relay.socket)
        relay.socket.close()

    def serve(self) -> None:
        """Answers whoever has said something."""
        for socket, _ in self.poller.poll(0):
            socket.send_multipart(socket.recv_multipart())


def main(manager: Manager) -> None:
    ready()
    with ThreadPoolExecutor(2) as clients:
        for number in paced(PER_S):
            name = f"service-{number}"
            both_at_once = threading.Barrier(2)
            asked = [clients.submit(_ask, manager, name, both_at_once) for _ in range(2)]
            for each in asked:
                each.result()
            manager.serve()
            manager.destroy(name)


def _ask(manager: Manager, name: str, both_at_once: threading.Barrier) -> None:
    both_at_once.wait()
    manager.relay(name)


if __name__ == "__main__":
    main(Manager())
