"""New code, drains by name, processes that hang, modules that do what must not be done before a fork."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datacenter import Client
from datacenter.testing import Launcher, NotReadyError, RunningBroker, RunningService, family_of
from families import WORKERS, gone, pid_of, registered, until


@pytest.fixture
def client(broker: RunningBroker) -> Iterator[Client]:
    with Client(broker.address) as made:
        yield made


class Caller:
    """Calls without pause, in a thread; keeps what was said, and the first error."""

    def __init__(self, client: Client) -> None:
        self.heard: list[object] = []
        self.error: BaseException | None = None
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set() and self.error is None:
            try:
                self.heard.append(self._client.call("shop.version"))
            except BaseException as error:
                self.error = error

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_new_code_comes_without_a_lost_call_and_broken_code_not_at_all(
    family: RunningService, client: Client, folder: Path
) -> None:
    code = (folder / "shop.py").read_text()
    with Caller(client) as caller:
        until(lambda: "one" in caller.heard, "calls are answered")
        lines = len(family.lines)
        (folder / "shop.py").write_text(code.replace('"one"', '"two"'))
        family.signal(signal.SIGHUP)
        family.wait_line("^serving shop with 2 workers at", 30, after=lines)
        heard = len(caller.heard)
        until(lambda: "two" in caller.heard[heard:] or caller.error, "the new code answers")
        until(lambda: len(family_of(family.pid)) == 4 or caller.error, "the old processes have ended")
        (folder / "shop.py").write_text("1 / 0\n" + code)
        family.signal(signal.SIGHUP)
        until(lambda: "the old code goes on" in family.errors, "it says why not")
        assert "division by zero" in family.errors
        (folder / "shop.py").write_text(code.replace('"one"', '"three"'))
        family.signal(signal.SIGHUP)
        until(lambda: caller.heard[-1] == "three" or caller.error, "after a broken one comes another")
    assert caller.error is None


def test_an_instance_that_is_drained_by_name_stays_away_and_the_last_one_ends_the_family(
    family: RunningService, broker: RunningBroker, launch: Launcher
) -> None:
    drain = launch.command("drain", "shop", "--broker", broker.address)
    assert drain.wait(30) == 0
    assert family.wait() == 0
    assert registered(broker, launch) == set()


def test_who_hangs_leaves_the_registry_and_a_watcher_that_hangs_is_replaced(
    family: RunningService, broker: RunningBroker, launch: Launcher
) -> None:
    stopped = pid_of(family, "worker-1")
    os.kill(stopped, signal.SIGSTOP)
    watcher = pid_of(family, "watcher")
    os.kill(watcher, signal.SIGSTOP)
    until(lambda: pid_of(family, "watcher") != watcher, "another watcher")
    until(lambda: registered(broker, launch) == {pid_of(family, "worker-2")}, "it has left the registry")
    os.kill(stopped, signal.SIGCONT)
    until(lambda: registered(broker, launch) == {pid_of(family, name) for name in WORKERS}, "it is back")
    assert pid_of(family, "worker-1") == stopped


def test_a_worker_that_is_told_to_end_is_replaced_and_its_child_keeps_nobody(
    family: RunningService, client: Client
) -> None:
    first = pid_of(family, "worker-1")
    children = [client.call("shop.has_children") for _ in range(2)]
    os.kill(first, signal.SIGTERM)
    try:
        until(lambda: gone([first]), "the worker has ended")
        # A worker's orphans have its name, and the supervisor for their parent.
        names = ["fork-server", "watcher", *WORKERS]
        until(
            lambda: sorted(each.name for each in family_of(family.pid) if each.pid not in children) == sorted(names),
            "another worker-1, although children of the first one live",
        )
        assert isinstance(client.call("shop.pid"), int)
        family.signal(signal.SIGTERM)
        assert family.wait() == 0
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_a_module_that_connects_at_its_import_is_refused(launch: Launcher, broker: RunningBroker, folder: Path) -> None:
    code = (folder / "shop.py").read_text()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (folder / "shop.py").write_text(
            f"import socket\nconnection = socket.create_connection(('127.0.0.1', {port}))\n{code}"
        )
        family = launch.start_service("shop:shop", broker, options=("--workers", "2"))
        assert family.wait(30) == 2
    assert f"127.0.0.1:{port} ESTABLISHED" in family.errors
    assert "Traceback" not in family.errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "2", "--listen", "tcp://127.0.0.1:7711"), "each needs a port of its own"),
        (("--workers", "2", "--listen", "tcp://0.0.0.0:0"), "no key protects it"),
        (("--workers", "2", "--broker", "nonsense"), "is no address"),
        (("--workers", "2", "--advertise", "tcp://127.0.0.1:7711"), "each listens at a port of its own"),
        (("--workers", "2", "--listen", "ipc:///tmp/shop.sock"), "no free number to take"),
        (("--workers", "2", "--listen", "tcp://0.0.0.0:0", "--insecure"), "--advertise"),
        (("shop:shop", "--workers", "2"), "two services are named 'shop'"),
        (("nowhere:shop", "--workers", "2"), "there is no module 'nowhere'"),
    ],
)
def test_a_mistake_is_one_message(launch: Launcher, options: tuple[str, ...], said: str) -> None:
    family = launch.command("serve", "shop:shop", *options)
    with pytest.raises(NotReadyError):
        family.wait_line("^serving", 30)
    assert family.wait() == 2
    assert said in family.errors.lower()
    assert len(family.errors.strip().splitlines()) <= 2, family.errors  # what is wrong, and what to do
