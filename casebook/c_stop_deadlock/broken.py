"""Incident C: proxies are stopped through one control socket that all threads share. One of them does not listen.

    python -m casebook.c_stop_deadlock.broken

Each service has a proxy in a thread of its own. Who stops one takes the lock of the control socket, connects it to the
proxy's end, says TERMINATE and waits until the thread has ended. A proxy whose worker does not read is inside a send
and does not hear it (proxy.cpp:125). The lock is held for ever: whoever wants to stop another proxy waits for it.
"""

from __future__ import annotations

import threading

import zmq
from casebook.nearby import Context, Socket, address, paced, ready

PROXIES = 4
REQUESTS = 3000
FEW = 5
PER_S = 20


class Proxy:
    """Passes what clients send to the workers of one service."""

    def __init__(self, context: Context, name: str) -> None:
        self.context = context
        self.name = name
        self.started = threading.Event()
        self.endpoint = self.workers = ""
        self.thread = threading.Thread(target=self.run, name=f"proxy {name}", daemon=True)
        self.thread.start()
        self.started.wait()

    def run(self) -> None:
        """Its thread, until it is told to end."""
        with (
            self.context.socket(zmq.ROUTER) as front,
            self.context.socket(zmq.DEALER) as back,
            self.context.socket(zmq.PAIR) as control,
        ):
            for socket in (front, back, control):
                socket.linger = 0
            back.sndhwm = FEW
            front.bind("tcp://127.0.0.1:*")
            back.bind("tcp://127.0.0.1:*")
            control.bind(f"inproc://{self.name}")
            self.endpoint, self.workers = address(front), address(back)
            self.started.set()
            self.pass_on(front, back, control)

    def pass_on(self, front: Socket, back: Socket, control: Socket) -> None:
        """libzmq's own loop: its sends wait as long as it takes."""
        zmq.proxy_steerable(front, back, None, control)


class Manager:
    """All proxies. Any thread may stop any of them."""

    def __init__(self, proxy_type: type[Proxy]) -> None:
        self.context: Context = zmq.Context()
        self.proxies = {name: proxy_type(self.context, name) for name in map(str, range(PROXIES))}
        self.control = self.context.socket(zmq.PAIR)
        self.lock = threading.Lock()

    def stop(self, name: str) -> None:
        """Ends one proxy. Returns when its thread has ended."""
        with self.lock:  # casebook: waits
            self.control.connect(f"inproc://{name}")
            self.control.send(b"TERMINATE")
            self.proxies[name].thread.join()
            self.control.disconnect(f"inproc://{name}")


def overload(manager: Manager, proxy: Proxy) -> tuple[Socket, Socket]:
    """A worker that is connected and does not read, and a client that has more requests than fit into the queues."""
    worker = manager.context.socket(zmq.DEALER)
    worker.rcvhwm = FEW
    worker.connect(proxy.workers)
    client = manager.context.socket(zmq.DEALER)
    client.linger = 0
    client.sndhwm = 0
    client.connect(proxy.endpoint)
    for _ in range(REQUESTS):
        client.send(b"r" * 4096)
    return worker, client


def main(manager: Manager) -> None:
    _kept = overload(manager, manager.proxies["0"])
    for name in manager.proxies:
        threading.Thread(target=manager.stop, args=(name,), name=f"stop {name}", daemon=True).start()
    ready()
    for _ in paced(PER_S):
        pass  # all else goes on as ever


if __name__ == "__main__":
    main(Manager(Proxy))
