"""`datacenter proxy`: real Redis behind it, real clients before it, its processes killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from datacenter.errors import AddressError, AddressInUseError, DatacenterError, InsecureAddressError
from datacenter.gateway import workers
from datacenter.gateway.workers import Settings, reserve
from datacenter.prefork import messages
from datacenter.prefork.fork_link import pair
from datacenter.prefork.pipe import Pipe
from datacenter.sockets.ledger import Ledger
from datacenter.testing.launcher import Launcher
from datacenter.testing.ports import free_port
from datacenter.wire import Resolution
from gateway_site import GatewaySite, tcp_sockets, tcp_states
from redis_servers import start_redis

DEADLINE_S = 30.0


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def client_of(site: GatewaySite) -> redis.Redis:
    return redis.Redis(port=site.port, protocol=2, socket_timeout=DEADLINE_S)


@pytest.fixture(params=["least-connections", "redis-keys"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[GatewaySite]:
    with Launcher(cwd=tmp_path) as launcher:
        yield GatewaySite(launcher, request.param)


def test_a_gateway_whose_parts_die_one_after_another(site: GatewaySite) -> None:
    for _, port in site.redises:
        with redis.Redis(port=port) as direct:
            direct.set("a", "1")
    with client_of(site) as client:
        assert client.get("a") == b"1"
    family = site.family()
    assert family.keys() == {"fork-server", "watcher", "worker-1", "worker-2"}
    broker = site.broker_port
    backends = {f"to {port}" for _, port in site.redises}
    for name, pid in family.items():  # one process has the registry, and nobody inherits anything
        held = set(tcp_sockets(pid))
        assert (f"to {broker}" in held) == (name == "watcher"), (name, held)
        assert held <= ({"listener", *backends} if name.startswith("worker") else {f"to {broker}"}), (name, held)
    before = {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in family.items()}

    for name in ("watcher", "worker-1", "fork-server", "worker-2"):
        os.kill(family[name], signal.SIGKILL)
        gone = family[name]
        until(lambda: site.family().get(name, gone) != gone, f"another {name}")  # noqa: B023
        with client_of(site) as client:  # one worker at least listens all the while
            assert answered(client) == b"1"

    def as_before() -> bool:
        family = site.family()
        now = {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in family.items()}
        return now == before

    until(as_before, f"as many descriptors as before: {before}")
    assert site.proxy.end() == 0, site.proxy.errors


def answered(client: redis.Redis) -> object:
    """What `a` is; a connection that a killed worker had taken is made again."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            return client.get("a")
        except (redis.ConnectionError, redis.ResponseError):
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_backend_that_dies_leaves_and_comes_back(site: GatewaySite) -> None:
    first, port = site.redises[0]
    said = len(site.watchdog.lines)
    first.kill()
    site.watchdog.wait_line(f":{port} gone", DEADLINE_S, after=said)

    def all_work() -> bool:
        try:
            for number in range(10):
                with client_of(site) as client:
                    client.set(f"k{number}", "1")
        except (redis.ConnectionError, redis.ResponseError):
            return False
        return True

    until(all_work, "every request is answered by the other server")
    start_redis(site.launcher, port)
    site.watchdog.wait_line(f":{port} healthy", DEADLINE_S, after=said)

    def used_again() -> bool:
        all_work()
        with redis.Redis(port=port) as direct:
            return direct.dbsize() > 0

    until(used_again, "the server that came back gets requests")
    workers = [pid for name, pid in site.family().items() if name.startswith("worker")]
    until(lambda: all("CLOSE_WAIT" not in tcp_states(pid) for pid in workers), "nothing is left half closed")
    assert site.proxy.end() == 0, site.proxy.errors


def test_a_gateway_waits_for_its_broker_and_says_so(launcher: Launcher) -> None:
    port = free_port()
    proxy = launcher.command("proxy", "-s", "redis", "-l", "127.0.0.1:0", "-b", f"tcp://127.0.0.1:{port}")
    until(lambda: f"no broker answered at tcp://127.0.0.1:{port} within 5 s" in proxy.errors, "it says what it lacks")
    broker = launcher.broker(port)
    _, served = start_redis(launcher)
    launcher.command("watchdog", "-b", broker.address, "-n", "redis", "-a", f"127.0.0.1:{served}", "-c", "redis")
    proxy.wait_line("^proxy for redis with 2 workers", DEADLINE_S)
    assert proxy.end() == 0, proxy.errors


async def test_a_worker_that_waits_for_the_registry_is_no_worker_that_cannot_start() -> None:
    ours, theirs = pair()
    heard: list[Any] = []
    ledger = Ledger.open()
    pipe = Pipe(ours, messages.from_worker, heard.append, lambda: None, ledger=ledger, owner="test")
    settings = Settings("tcp://127.0.0.1:1", "redis", "127.0.0.1", free_port(), "least-connections", {})
    stop = asyncio.Event()
    worker = asyncio.create_task(workers.work(theirs, settings, stop))
    try:
        await heard_of(heard, messages.Serving)
        assert not any(isinstance(message, messages.Ready) for message in heard)
        pipe.send(messages.Changed(Resolution("redis", "foreign", "away", 1)))
        await heard_of(heard, messages.Ready)
    finally:
        stop.set()
        await worker
        pipe.close()
        ledger.close()


async def heard_of(heard: list[Any], kind: type[object]) -> None:
    for _ in range(int(DEADLINE_S / 0.01)):
        if any(isinstance(message, kind) for message in heard):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"it said only {heard}")


MISTAKES = [
    ("127.0.0.1", AddressError, "has no host and port"),
    ("0.0.0.0:0", InsecureAddressError, "other machines can reach it"),
    ("ipc:///tmp/x", AddressError, "is no TCP address"),
]


@pytest.mark.parametrize(("listen", "kind", "text"), MISTAKES)
def test_where_nobody_can_listen(listen: str, kind: type[DatacenterError], text: str) -> None:
    with pytest.raises(kind, match=text), reserve(listen, broker="tcp://127.0.0.1:7700", insecure=False):
        pass


def test_two_gateways_do_not_share_a_port_before_either_listens() -> None:
    with reserve("127.0.0.1:0", broker="tcp://127.0.0.1:7700", insecure=False) as first:
        place = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(AddressInUseError), reserve(place, broker="tcp://127.0.0.1:7700", insecure=False):
            pass
    with reserve(place, broker="tcp://127.0.0.1:7700", insecure=False):  # it is free again
        pass


def test_a_port_is_not_shared_with_somebody_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other, Launcher(cwd=tmp_path) as launcher:
        place = f"127.0.0.1:{other.getsockname()[1]}"  # somebody listens there who would share it
        proxy = launcher.command("proxy", "-s", "redis", "-l", place)
        assert proxy.wait(DEADLINE_S) == 3
        assert proxy.errors.startswith(f"datacenter: cannot listen at {place}: Address already in use")
        assert "Traceback" not in proxy.errors
