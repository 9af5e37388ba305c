"""Incident C put right: each proxy has a channel of its own and waits nowhere else; nobody waits with a lock held.

python -m casebook.c_stop_deadlock.fixed
"""

from __future__ import annotations

import zmq
from casebook.c_stop_deadlock import broken
from casebook.nearby import Socket

STOPS_WITHIN_S = 2.0


class Proxy(broken.Proxy):
    """A Proxy that hears its control socket in every state: it never waits inside a send."""

    def pass_on(self, front: Socket, back: Socket, control: Socket) -> None:
        """A message that finds no place is kept, and nothing more is taken meanwhile."""
        kept: list[bytes] = []
        while True:
            waits_for = {front: zmq.POLLIN} if not kept else {back: zmq.POLLOUT}
            poller = zmq.Poller()
            for socket, events in {control: zmq.POLLIN, **waits_for}.items():
                poller.register(socket, events)
            seen = dict(poller.poll())
            if control in seen:
                return
            kept = kept or front.recv_multipart()
            try:
                back.send_multipart(kept, zmq.NOBLOCK)
                kept = []
            except zmq.Again:
                continue


class Manager(broken.Manager):
    """A Manager without a socket that threads share."""

    def stop(self, name: str) -> None:
        """Ends one proxy, through a channel that is made for this, by the thread that uses it."""
        with self.context.socket(zmq.PAIR) as control:
            control.linger = 0
            control.connect(f"inproc://{name}")
            control.send(b"TERMINATE")
            self.proxies[name].thread.join(STOPS_WITHIN_S)


if __name__ == "__main__":
    broken.main(Manager(Proxy))
