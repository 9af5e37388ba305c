"""Programs that are looked at: each prints a line when it is ready, then goes on until it is killed.

Run as `python targets.py NAME [ARGUMENT]`. They are real: real kinds, real sockets, a real libzmq.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pty
import resource
import select
import socket
import sys
import time
from collections.abc import Callable

HELD: list[object] = []


def ready() -> None:
    print("ready", flush=True)


def forever(action: Callable[[], object], per_second: float = 20.0) -> None:
    """Repeat an action at a pace that does not drift."""
    ready()
    due = time.monotonic()
    while True:
        action()
        due += 1 / per_second
        time.sleep(max(0.0, due - time.monotonic()))


def inotify() -> int:
    return int(ctypes.CDLL(None, use_errno=True).inotify_init1(0))


def timerfd() -> int:
    return int(ctypes.CDLL(None, use_errno=True).timerfd_create(1, 0))


OPENERS: dict[str, Callable[[], object]] = {
    "file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "directory": lambda: os.open("/etc", os.O_RDONLY | os.O_DIRECTORY),
    "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(),
    "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach(),
    "pipe": os.pipe,
    "eventfd": lambda: os.eventfd(0),
    "epoll": lambda: HELD.append(select.epoll()),
    "memfd": lambda: os.memfd_create("leaked"),
    "pidfd": lambda: os.pidfd_open(os.getpid()),
    "timerfd": timerfd,
    "inotify": inotify,
    "pty": pty.openpty,
}


def leak(kind: str, per_second: str = "20") -> None:
    """So many of a kind (pipe and pty: two each)."""
    forever(OPENERS[kind], float(per_second))


def leak_until_limit(limit: str) -> None:
    """Leaks until open() fails with EMFILE, then dies of it."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
    forever(OPENERS["file"])


def churn_files() -> None:
    """Opens ten files and closes them, again and again."""

    def action() -> None:
        for number in [os.open("/etc/passwd", os.O_RDONLY) for _ in range(10)]:
            os.close(number)

    forever(action, 200.0)


def churn_cycles() -> None:
    """Files held by reference cycles, which only the cyclic garbage collector closes: a sawtooth."""
    pool: list[int] = []

    def action() -> None:
        pool.append(os.open("/etc/passwd", os.O_RDONLY))
        if len(pool) >= 40:
            while pool:
                os.close(pool.pop())

    forever(action, 40.0)


def churn_asyncio() -> None:
    """An asyncio server under a churn of short connections."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def call(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        await reader.read()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        ready()
        while True:
            await asyncio.gather(*(call(port) for _ in range(5)))
            await asyncio.sleep(0.02)

    asyncio.run(run())


def close_wait(count: str) -> None:
    """Accepted connections whose peers have closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    for _ in range(int(count)):
        with socket.create_connection(listener.getsockname()):
            HELD.append(listener.accept()[0])
    forever(lambda: None, 1.0)


def never_bound(count: str) -> None:
    HELD.extend(socket.socket() for _ in range(int(count)))
    forever(lambda: None, 1.0)


def weird_names(folder: str) -> None:
    """Ever more files whose names are no UTF-8, end lines and clear terminals."""
    names = (b"line\nline", b"\033[2Jclear", b"\xff\xfe")

    def action() -> None:
        HELD.extend(os.open(os.path.join(folder.encode(), name), os.O_CREAT | os.O_RDWR) for name in names)

    action()
    forever(action, 10.0)


def near_limit(limit: str) -> None:
    """All but two of its descriptors in use, and still."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
    while os.open("/etc/passwd", os.O_RDONLY) < int(limit) - 3:
        pass
    forever(lambda: None, 1.0)


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def zmq_client(reading: str) -> None:
    """A socket per query beside a monitored socket whose server is away. Prints (time, closed sockets) as it goes on.

    The reconnect interval of 1 ms fills an unread monitor's 2 000 events in 0.8 s.
    """
    import zmq

    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    lost = context.socket(zmq.DEALER)
    lost.linger, lost.reconnect_ivl = 0, 1
    lost.monitor("inproc://monitor", zmq.EVENT_ALL)
    reader = context.socket(zmq.PAIR)
    reader.connect("inproc://monitor")
    lost.connect(f"tcp://127.0.0.1:{dead_port()}")
    closed = 0

    def query() -> None:
        nonlocal closed
        socket_of_query = context.socket(zmq.DEALER)
        socket_of_query.linger = 0
        socket_of_query.connect(f"tcp://127.0.0.1:{port}")
        socket_of_query.close()
        closed += 1
        print(time.monotonic(), closed, flush=True)
        while reading == "drained" and reader.poll(0):
            reader.recv_multipart()

    forever(query)


def zmq_reaper() -> None:
    """Closes the reader of a monitor before its socket: MONITOR_STOPPED blocks the reaper. And a socket per query."""
    import zmq

    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    client = context.socket(zmq.DEALER)
    client.monitor("inproc://monitor", zmq.EVENT_MONITOR_STOPPED)
    reader = context.socket(zmq.PAIR)
    reader.connect("inproc://monitor")
    client.connect(f"tcp://127.0.0.1:{port}")
    reader.close()
    client.close()

    def query() -> None:
        context.socket(zmq.DEALER).close()

    forever(query)


def zmq_idle() -> None:
    """A healthy context: connected, monitored and read, and nothing happens."""
    import zmq

    context = zmq.Context()
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
    HELD.extend((context, server, client, client.get_monitor_socket()))
    forever(lambda: None, 1.0)


def zmq_full() -> None:
    """Makes sockets until the context has no slot left, far from the limit of descriptors."""
    import zmq

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    context = zmq.Context()
    try:
        while True:
            HELD.append(context.socket(zmq.DEALER))
    except zmq.ZMQError:
        forever(lambda: None, 1.0)


def on_request() -> None:
    """For each line on stdin: leaves a TCP connection open (both ends), and opens a file and closes it 0.3 s later."""
    listener = socket.create_server(("127.0.0.1", 0))
    ready()
    for _ in sys.stdin:
        client = socket.create_connection(listener.getsockname())
        HELD.extend((client, listener.accept()[0]))
        with open("/etc/hostname"):
            time.sleep(0.3)
        print("done", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
