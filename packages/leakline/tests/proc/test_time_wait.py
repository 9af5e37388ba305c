"""Whose connections in TIME_WAIT are: the process that opens and closes them, not the one that keeps its own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from leakline import proc
from leakline.proc.process import Process
from leakline.proc.time_wait import WORTH_A_LOOK, read_time_wait


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """Accepts, and closes when the client has closed, so that TIME_WAIT is the client's."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def serve() -> None:
        with suppress(OSError):  # the listener was shut down: the end
            while True:
                accepted, _ = listener.accept()
                threading.Thread(target=closed_after_peer, args=(accepted,)).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def closed_after_peer(accepted: socket.socket) -> None:
    with accepted:
        accepted.recv(1)


def open_and_close(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def test_whose_connections_come_and_go(server: tuple[str, int]) -> None:
    name = f"127.0.0.1:{server[1]}"
    with socket.create_connection(server):
        if (child := os.fork()) == 0:  # another process than the one that is looked at
            for _ in range(WORTH_A_LOOK + 50):
                open_and_close(server)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        seen = read_time_wait(Process(os.getpid()), proc.snapshot(os.getpid()))
        assert seen is not None
        assert seen.remotes[name] >= WORTH_A_LOOK
        assert not seen.come_and_go

        ended = threading.Event()

        def calls() -> None:
            while not ended.is_set():
                open_and_close(server)

        caller = threading.Thread(target=calls)
        caller.start()
        try:
            seen = read_time_wait(Process(os.getpid()), proc.snapshot(os.getpid()))
        finally:
            ended.set()
            caller.join()
        assert seen is not None
        assert seen.come_and_go
