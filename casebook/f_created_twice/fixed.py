"""Incident F put right: looking and noting are one step. Who comes second waits for the relay of the first.

python -m casebook.f_created_twice.fixed
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from casebook.f_created_twice import broken
from casebook.f_created_twice.broken import Relay


class Manager(broken.Manager):
    """A Manager whose relays are made once. The lock is held for the note alone, not while a relay is made."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.promised: dict[str, Future[Relay]] = {}

    def relay(self, name: str) -> Relay:
        """The relay of a service. Made by the first who asks."""
        with self.lock:
            first = name not in self.promised
            promise = self.promised.setdefault(name, Future())
        if first:
            relay = Relay(self.context)
            self.poller.register(relay.socket)
            promise.set_result(relay)
        return promise.result()

    def destroy(self, name: str) -> None:
        """Nobody uses the service any more."""
        with self.lock:
            relay = self.promised.pop(name).result()
        self.poller.unregister(relay.socket)
        relay.socket.close()


if __name__ == "__main__":
    broken.main(Manager())
