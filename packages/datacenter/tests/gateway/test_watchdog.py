"""`datacenter watchdog` beside real servers: registered while they pass, quiet, gone, back."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from datacenter import runtime
from datacenter.errors import AddressError, BadOptionError
from datacenter.gateway.watchdog import Watchdog
from datacenter.sockets.ledger_compare import compare_with_proc
from datacenter.testing.launcher import Launcher, RunningBroker
from datacenter.testing.ports import free_port
from datacenter.testing.processes import Process
from datacenter.wire import Resolution
from redis_servers import start_redis

SHOP = """
from datacenter import Service

shop = Service("shop")
"""
FAST = ("--interval-s", "0.05", "--timeout-s", "0.5")
DEADLINE_S = 40.0


@pytest.fixture
def broker(launcher: Launcher) -> RunningBroker:
    return launcher.broker(options=("--lease-s", "1"))


def watch(launcher: Launcher, broker: RunningBroker, *words: str) -> Process:
    return launcher.command("watchdog", "--broker", broker.address, *FAST, *words)


def listed(broker: RunningBroker) -> dict[str, Resolution]:
    """The services that the broker knows, by name."""
    process = runtime.acquire()
    session = process.session(broker.address)
    try:
        session.wait_connected(DEADLINE_S)
        return {service.name: service for service in session.list_services().result(DEADLINE_S)}
    finally:
        process.release_session(session)
        runtime.release(process)


def healths(service: Resolution) -> list[str]:
    return sorted(instance.metadata["health"] for instance in service.instances)


def until_listed(broker: RunningBroker, name: str, wanted: list[str]) -> Resolution:
    """The service, once the health of its instances is as wanted."""
    end = time.monotonic() + DEADLINE_S
    while True:
        service = listed(broker).get(name)
        if service is not None and healths(service) == wanted:
            return service
        assert time.monotonic() < end, f"{name} is {service}, not {wanted}"


def until(condition: Callable[[], bool], process: Process) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, process.errors[-500:]
        time.sleep(0.01)


def test_a_redis_is_registered_while_it_answers(launcher: Launcher, broker: RunningBroker) -> None:
    first, port = start_redis(launcher)
    second, other = start_redis(launcher)
    addresses = ("-a", f"127.0.0.1:{port}", "-a", f"tcp://localhost:{other}", "--gone-after", "30")
    dog = watch(launcher, broker, "--name", "redis", *addresses, "--check", "redis")
    service = until_listed(broker, "redis", ["healthy", "healthy"])
    assert service.type == "foreign"
    assert {each.endpoint for each in service.instances} == {f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{other}"}

    first.signal(signal.SIGSTOP)  # it accepts, and says nothing
    dog.wait_line(rf"^redis tcp://127.0.0.1:{port} quiet: no answer within 0.5 s$")
    until_listed(broker, "redis", ["healthy", "quiet"])
    first.signal(signal.SIGCONT)
    until_listed(broker, "redis", ["healthy", "healthy"])

    second.kill()
    dog.wait_line(rf"^redis tcp://127.0.0.1:{other} gone: Connect")
    assert until_listed(broker, "redis", ["healthy"]).state == "live"
    start_redis(launcher, other)
    back = until_listed(broker, "redis", ["healthy", "healthy"])
    before = {each.id: each.epoch for each in service.instances}
    assert {each.id for each in back.instances} == before.keys()
    assert all(each.epoch > before[each.id] for each in back.instances)

    assert dog.end() == 0, dog.errors
    assert listed(broker)["redis"].state == "away"


def test_a_watchdog_that_is_killed_takes_its_servers_out_with_it(launcher: Launcher, broker: RunningBroker) -> None:
    _, port = start_redis(launcher)
    dog = watch(launcher, broker, "-n", "redis", "-a", f"127.0.0.1:{port}", "-c", "redis")
    until_listed(broker, "redis", ["healthy"])
    dog.kill()
    until_listed(broker, "redis", [])


def test_drain_takes_the_server_out_and_ends_the_watchdog(launcher: Launcher, broker: RunningBroker) -> None:
    redis, port = start_redis(launcher)
    dog = watch(launcher, broker, "-n", "redis", "-a", f"127.0.0.1:{port}", "-c", "redis")
    until_listed(broker, "redis", ["healthy"])
    drain = launcher.command("drain", "redis", "--broker", broker.address)
    assert drain.wait() == 0, drain.errors
    assert dog.wait() == 0, dog.errors
    dog.wait_line("gone: drained")
    assert redis.running
    assert listed(broker)["redis"].state == "away"


def test_http_and_commands(launcher: Launcher, broker: RunningBroker) -> None:
    page = launcher.python("-m", "http.server", "--bind", "127.0.0.1", str(port := free_port()))
    web = watch(launcher, broker, "-n", "web", "-a", f"127.0.0.1:{port}", "-c", "http:/", "--json")
    _, found = web.wait_line(r"^\{.*\}$")
    assert json.loads(found[0])["health"] == "healthy"
    lost = watch(launcher, broker, "-v", "-n", "lost", "-a", f"127.0.0.1:{port}", "-c", "http:/no/such/page")
    script = (
        "import os, socket; socket.create_connection((os.environ['DATACENTER_HOST'], os.environ['DATACENTER_PORT']))"
    )
    words = f'command:{sys.executable} -c "{script}"'
    by_command = watch(launcher, broker, "-n", "mine", "-a", f"127.0.0.1:{port}", "-c", words, "--timeout-s", "10")
    by_command.wait_line("^mine tcp://.* healthy$")
    until(lambda: "404" in lost.errors, lost)
    page.kill()
    by_command.wait_line("^mine tcp://.* quiet: .*python.* ended with status 1$")
    web.wait_line('"health": "quiet", "why": "Connect')
    assert not lost.lines  # what never passed is not registered
    assert "lost" not in listed(broker)


def test_each_check_closes_what_it_opened(launcher: Launcher, broker: RunningBroker) -> None:
    _, port = start_redis(launcher)
    addresses = ("-a", f"127.0.0.1:{port}", "-a", f"127.0.0.1:{free_port()}")
    checks = ("redis", "tcp", "http", "command:false")
    dogs = [watch(launcher, broker, "-v", "-n", check[:4], *addresses, "-c", check) for check in checks]
    for dog in dogs:
        until(lambda dog=dog: dog.errors.count("failed its check") >= 40, dog)
        comparison = compare_with_proc(dog.pid)
        # Its standard streams, and for each address a check in progress: a connection, or what a child is started with
        # (three times /dev/null, a pipe, its pidfd). One kept by each check would be 40 by now.
        assert len(comparison.unowned) <= 3 + 2 * 6, comparison.unowned


HERE = ["127.0.0.1:1"]
MISTAKES = [
    ("ftp", HERE, "there is no check 'ftp'"),
    ("http:no-slash", HERE, "there is no check"),
    ("command:no-such-command-anywhere", HERE, "there is no command 'no-such-command-anywhere'"),
    ("command:'", HERE, "cannot be read"),
    ("tcp", [*HERE, "tcp://127.0.0.1:1"], "one address is given twice"),
    ("tcp", [], "no address was given"),
    ("tcp", ["127.0.0.1"], "has no host and port"),
    ("tcp", ["ipc:///tmp/x"], "is no TCP address"),
]


@pytest.mark.parametrize(("check", "addresses", "text"), MISTAKES)
def test_a_mistake_is_told(check: str, addresses: list[str], text: str) -> None:
    with pytest.raises((BadOptionError, AddressError), match=text):
        Watchdog("redis", addresses, broker="tcp://127.0.0.1:7700", check=check)


def test_a_mistake_at_the_command_line_is_one_message(launcher: Launcher) -> None:
    command = launcher.command("watchdog", "--name", "x", "--address", "127.0.0.1:1", "--check", "ftp")
    assert command.wait(DEADLINE_S) == 2
    assert "there is no check 'ftp'" in command.errors
    assert "Traceback" not in command.errors


def test_a_name_of_another_type_is_a_conflict(launcher: Launcher, broker: RunningBroker) -> None:
    assert launcher.cwd is not None
    Path(launcher.cwd, "shop.py").write_text(SHOP)
    launcher.service("shop:shop", broker)
    _, port = start_redis(launcher)
    dog = watch(launcher, broker, "-n", "shop", "-a", f"127.0.0.1:{port}")
    assert dog.wait() == 1
    assert "'shop' is registered as rpc, not as foreign" in dog.errors
