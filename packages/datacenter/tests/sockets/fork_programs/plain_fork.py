"""What a forked child keeps of its parent's sockets without datacenter, and what shutdown(2) does to every sharer: the
facts of docs/fork.md, with the real kernel and libzmq. Prints what it sees.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
import warnings
from pathlib import Path

import zmq

warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
NAMES = ("ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE_WAIT", "LISTEN")
STATES = dict(zip(("01", "04", "05", "06", "08", "0A"), NAMES, strict=True))


def states(port: int) -> str:
    """The states of the sockets of a port, as the kernel has them."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        here, there = (int(word.split(":")[1], 16) for word in words[1:3])
        if port in (here, there):
            found.append(("our end " if port == here else "remote's ") + STATES.get(words[3], words[3]))
    return ", ".join(sorted(found)) or "none"


def bind(port: int) -> str:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
            one.listen()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "bound"


def asleep(remote: socket.socket) -> int:
    pid = os.fork()
    if pid == 0:
        remote.close()  # it plays another machine
        signal.alarm(60)
        signal.pause()
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.2)


def plain_pyzmq() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    server = context.socket(zmq.ROUTER)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    remote = socket.create_connection(("127.0.0.1", port), 1)
    time.sleep(0.2)
    child = asleep(remote)
    context.destroy(0)
    time.sleep(0.2)
    print(f"the parent closed, its child sleeps: {states(port)}; a successor's bind: {bind(port)}")
    remote.recv(1000)  # libzmq's greeting
    try:
        print(f"the remote reads {remote.recv(1000)!r}")
    except TimeoutError:
        print("the remote sees no end within 1 s")
    remote.close()
    for seconds in (0.2, 2.0):
        time.sleep(seconds)
        print(f"{seconds} s after the remote closed: {states(port)}")
    end(child)
    print(f"the child is gone: {states(port)}; a successor's bind: {bind(port)}")


def with_shutdown() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    remote = socket.create_connection(("127.0.0.1", port), 1)
    accepted, _ = listener.accept()
    child = asleep(remote)
    for one in (accepted, listener):
        one.shutdown(socket.SHUT_RDWR)
        one.close()
    print(
        f"the parent shut down, its child sleeps: the remote reads {remote.recv(1)!r}; a successor's bind: {bind(port)}"
    )
    held = [os.readlink(f"/proc/{child}/fd/{name}") for name in os.listdir(f"/proc/{child}/fd")]
    print(f"the child still has {sum(link.startswith('socket') for link in held)} sockets open")
    remote.close()
    end(child)


if __name__ == "__main__":
    plain_pyzmq()
    with_shutdown()
