"""Incident B: a service registers over a long-lived REQ socket. One reply is lost, and it can never register again.

    python -m casebook.b_req_wedged.broken

No descriptor leaks: leakline has nothing to say. It is the state machine of REQ (send, receive, send, …) that is stuck.
"""

from __future__ import annotations

import threading

import zmq
from casebook.nearby import Context, Socket, address, paced, ready

PER_S = 10
TIMEOUT_MS = 50


def forgetful_registry() -> str:
    """A registry that loses its first reply, as one does that is restarted at that moment."""
    registry: Socket = zmq.Context().socket(zmq.ROUTER)
    registry.bind("tcp://127.0.0.1:*")
    threading.Thread(target=_answer_all_but_the_first, args=(registry,), daemon=True).start()
    return address(registry)


def _answer_all_but_the_first(registry: Socket) -> None:
    registry.recv_multipart()
    while True:
        registry.send_multipart(registry.recv_multipart())


class Registration:
    """Renews a lease over one socket."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.socket = context.socket(zmq.REQ)
        self.socket.linger = 0
        self.socket.rcvtimeo = TIMEOUT_MS
        self.socket.connect(endpoint)

    def renew(self) -> str:
        """Registers again; what came of it."""
        try:
            self.socket.send(b"here I am")  # after a reply that never came this is no longer allowed
            self.socket.recv()
        except zmq.ZMQError as error:
            return f"not registered: {error}"
        return "registered"


def main(registration_type: type[Registration] = Registration) -> None:
    registration = registration_type(zmq.Context(), forgetful_registry())
    ready()
    for _ in paced(PER_S):
        print(registration.renew(), flush=True)


if __name__ == "__main__":
    main()
