"""Programs that do what the rules are about, each in its plainest form: `python programs.py NAME`. Each prints a line
when it is ready, goes on until its standard input ends, and takes its children along.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

HELD: list[object] = []
PER_SECOND = 20.0


def until_told(action: Callable[[], object] | None = None) -> None:
    """Repeat an action at an even pace, until standard input ends."""
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        if action is not None:
            action()
        due += 1 / PER_SECOND
        if select.select([0], [], [], max(0.0, due - time.monotonic()))[0]:
            return


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def accepted_not_closed() -> None:
    """Clients come and go; the server keeps each of them, and never looks at what they send."""
    server = listener()

    clients = subprocess.Popen(
        [sys.executable, __file__, "connect_only", str(server.getsockname()[1])], stdin=subprocess.PIPE
    )
    until_told(lambda: HELD.append(server.accept()[0]))
    clients.communicate()


def connect_only(port: str) -> None:
    """Connects, and keeps it: the other half of `accepted_not_closed`, and a leak of outgoing connections."""
    until_told(lambda: HELD.append(socket.create_connection(("127.0.0.1", int(port)))))


def outgoing_not_closed() -> None:
    """A connection per call; the server is a child, which accepts them."""
    server = listener()
    child = os.fork()
    if not child:
        while True:
            HELD.append(server.accept()[0])
    address = server.getsockname()
    server.close()
    until_told(lambda: HELD.append(socket.create_connection(address)))
    os.kill(child, 9)


def listeners_not_closed() -> None:
    until_told(lambda: HELD.append(listener()))


def connection_shared_with_a_child() -> None:
    """Connects, then forks: the child keeps the connection, and the port on which the parent takes connections."""
    server = listener()
    HELD.append(socket.create_connection(server.getsockname()))
    HELD.append(server.accept()[0])
    parent_only, child_only = os.pipe()
    child = os.fork()
    if not child:
        os.close(child_only)
        os.read(parent_only, 1)  # until the parent has ended
        os._exit(0)
    accepting = threading.Thread(target=server.accept, daemon=True)
    accepting.start()
    until_told()


def workers_that_accept() -> None:
    """Two forked workers that wait in accept(), as servers do: nothing is wrong."""
    server = listener()
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            while True:
                server.accept()[0].close()
        children.append(child)
    until_told()
    for child in children:
        os.kill(child, 9)


def pipes_of_dead_children() -> None:
    """Children whose output nobody reads nor closes."""

    def action() -> None:
        reading, writing = os.pipe()
        if not os.fork():
            os._exit(0)
        os.close(writing)
        os.wait()
        HELD.append(reading)

    until_told(action)


def pidfds_of_dead_children() -> None:
    def action() -> None:
        child = os.fork()
        if not child:
            os._exit(0)
        os.pidfd_open(child)
        os.waitpid(child, 0)

    until_told(action)


def deleted_logs() -> None:
    """A log that is rotated away: the new one is opened, the old one stays open."""

    def action() -> None:
        file = tempfile.NamedTemporaryFile(mode="w", suffix=".log", delete=False)  # noqa: SIM115
        file.write("line\n" * 1000)
        file.flush()
        os.unlink(file.name)
        HELD.append(file)

    until_told(action)


def stuck_on_a_lock() -> None:
    """Three threads wait for a lock whose owner never gives it back."""
    lock = threading.Lock()
    lock.acquire()

    def worker_that_needs_it() -> None:
        with lock:
            pass

    for _ in range(3):
        threading.Thread(target=worker_that_needs_it, daemon=True).start()
    until_told()


def idle_pools() -> None:
    """Workers that wait for work, all at one lock: nothing is wrong."""
    from concurrent.futures import ThreadPoolExecutor
    from queue import Queue

    queue: Queue[None] = Queue()
    pool = ThreadPoolExecutor(4)
    list(pool.map(time.sleep, [0.01] * 8))
    for _ in range(4):
        threading.Thread(target=queue.get, daemon=True).start()
    until_told()


def spins_at_the_limit() -> None:
    """At its limit, accept() fails at once, and the loop comes back to it."""
    import resource

    server = listener()
    server.setblocking(False)
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN)
    epoll.register(0, select.EPOLLIN)
    clients = subprocess.Popen(
        [sys.executable, __file__, "connect_only", str(server.getsockname()[1])], stdin=subprocess.PIPE
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    print("ready", flush=True)
    while True:
        for number, _ in epoll.poll():
            if number == 0:
                clients.kill()
                clients.wait()
                return
            try:
                HELD.append(server.accept()[0])
            except OSError:
                continue  # "Too many open files": as many an event loop does


def zmq_monitor_unread() -> None:
    """A monitor that nobody reads, while the socket tries to reach a server that is away."""
    import zmq

    context = zmq.Context()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = "tcp://{}:{}".format(*gone.getsockname())
    dealer = context.socket(zmq.DEALER)
    HELD.append(dealer.get_monitor_socket())
    dealer.reconnect_ivl = 100
    dealer.connect(address)
    until_told()
    context.destroy(0)


def zmq_socket_per_request() -> None:
    """Asks each time with a socket of its own, three times a turn: often enough also on a busy machine."""
    import zmq

    context = zmq.Context()
    server = context.socket(zmq.REP)
    address = f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}"

    def action() -> None:
        for _ in range(3):
            with context.socket(zmq.REQ) as request:
                request.connect(address)
                request.send(b"")
                server.send(server.recv())
                request.recv()

    until_told(action)
    context.destroy(0)


def zmq_idle_pair() -> None:
    """Connected, and nobody has looked at the socket since: nothing is wrong."""
    import zmq

    context = zmq.Context()
    server, client = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
    client.send(b"unread")
    until_told()
    context.destroy(0)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
