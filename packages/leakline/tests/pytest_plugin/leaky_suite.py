"""A suite of which some tests leak: run by test_pytest_plugin.py, under --leakline. What must leak is in its name."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import library
import pytest

KEPT: list[object] = []


def connect() -> None:
    KEPT.append(socket.socket())


def test_closes() -> None:
    with open(os.devnull), socket.socket():
        pass


def test_leaks_kept() -> None:
    connect()


def test_leaks_number() -> None:
    os.open("/etc/passwd", os.O_RDONLY)


def test_leaks_detached() -> None:
    socket.socket().detach()


def test_leaks_pipe_of_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    KEPT.append(child)
    child.wait()


def test_child_leaks_for_itself() -> None:
    subprocess.run([sys.executable, "-c", "import os; os.eventfd(0); os.pipe()"], check=True)


def test_fork() -> None:
    child = os.fork()
    if child == 0:
        os.eventfd(0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_closed_late_by_a_thread() -> None:
    threading.Timer(0.2, socket.socket().close).start()


def test_waits_for_the_collector() -> None:
    cycle: list[object] = [os.fdopen(os.open(os.devnull, os.O_RDONLY), "rb", 0)]
    cycle.append(cycle)
    gc.collect()


@pytest.fixture
def given() -> socket.socket:
    return socket.socket()


def test_value_of_a_fixture(given: socket.socket) -> None:
    pass


@pytest.fixture(scope="module")
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_first_of_a_module_fixture(pipe: tuple[int, int]) -> None:
    pass


class TestFixtureAtItsEnd:
    @pytest.fixture(scope="class")
    def half(self) -> Iterator[None]:
        read, _ = os.pipe()
        yield
        os.close(read)

    def test_uses_it(self, half: None) -> None:
        pass

    def test_leaks_fixture(self, half: None) -> None:
        pass


class Pool:
    def __init__(self) -> None:
        self.idle: list[socket.socket] = []

    def close(self) -> None:
        for each in self.idle:
            each.close()


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


@pytest.mark.parametrize("time", range(2))
def test_fixture_opens_later(pool: Pool, time: int) -> None:
    pool.idle.append(socket.socket())


def test_cache_fills() -> None:
    library.connection()


def test_cache_is_used() -> None:
    library.connection()


@pytest.mark.parametrize("time", ["cache_fills", "leaks_then"])
def test_list_of_a_module(time: str) -> None:
    library.more()


def test_import_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "opens_at_import.py").write_text("import os\nNUMBER = os.open(os.devnull, os.O_RDONLY)\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("opens_at_import")


@pytest.mark.leakline(allow="eventfd")
def test_allowed_kind() -> None:
    os.eventfd(0)


@pytest.mark.leakline(allow=["tcp", "*/passwd", "of_*"])
def test_leaks_beside_allowed() -> None:
    KEPT.append(open("/etc/passwd"))  # noqa: SIM115
    of_this_line()
    os.eventfd(0)


def of_this_line() -> None:
    os.pipe()


@pytest.mark.leakline(allow=lambda leak: leak.kind == "eventfd" and leak.frames)
def test_allowed_by_a_function() -> None:
    os.eventfd(0)


@pytest.mark.leakline(allow=True)
def test_allowed_altogether() -> None:
    os.memfd_create("kept")


def test_allowed_by_the_configuration() -> None:
    os.open("/etc/hostname", os.O_RDONLY)


def test_fails_with_open_socket() -> None:
    connection = socket.socket()
    raise ValueError(connection)


@pytest.mark.xfail
def test_fails_as_expected() -> None:
    connection = socket.socket()
    raise ValueError(connection)


def test_skips() -> None:
    connection = socket.socket()
    pytest.skip(f"{connection}")


async def test_async_closes() -> None:
    connection = socket.socket()
    asyncio.get_running_loop().call_later(0.01, connection.close)
    await asyncio.sleep(0)


async def test_async_leaks() -> None:
    await asyncio.sleep(0)
    connect()


def test_replaces_another() -> None:
    library.replace()


def test_replaces_it_again() -> None:
    library.replace()
