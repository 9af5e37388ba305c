"""What the tests of datacenter share: a broker, a server, a client, and the rule that every test ends as it began.

They import the modules beside this one (forwarder.py) by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from datacenter import AsyncClient, Broker, BrokerOptions, ClientOptions, Server, Service, ServiceOptions, runtime
from datacenter.sockets.ledger import Ledger

DEADLINE_S = 20.0

sys.path.insert(0, str(Path(__file__).parent))


def descriptors() -> dict[int, str]:
    """number -> target of every descriptor of this process."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    """No test leaves a descriptor open (libzmq's reaper closes a little later), nor a runtime."""
    gc.collect()
    before = descriptors()
    yield
    gc.collect()
    end = time.monotonic() + DEADLINE_S
    while (now := descriptors()) != before:
        if time.monotonic() > end:
            opened = {number: now[number] for number in now if now[number] != before.get(number)}
            pytest.fail(f"left open: {opened}; missing: {before.keys() - now.keys()}")
        time.sleep(0.002)
    assert runtime._current is None


Until = Callable[[Callable[[], object], str], Awaitable[None]]
AtRest = Callable[[], Awaitable[None]]


async def _until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"did not happen within {DEADLINE_S} s: {what}")
        await asyncio.sleep(0.005)


@pytest.fixture
def until() -> Until:
    """`await until(condition, what)` returns when it is true; fails, naming `what`, after a generous deadline."""
    return _until


@pytest.fixture
async def baseline() -> dict[int, str]:
    """The descriptors before anything of datacenter was made (the test's event loop is among them)."""
    return descriptors()


@pytest.fixture
async def at_rest(baseline: dict[int, str]) -> AtRest:
    """`await at_rest()`: what was opened since the test began is in the ledger, and the reverse."""

    async def check() -> None:
        ledger = Ledger.open()
        try:
            assert ledger.exact, ledger.reason
            await _until(lambda: not ledger.unexplained(baseline), f"ledger == /proc: {ledger.unexplained(baseline)}")
        finally:
            ledger.close()

    return check


@pytest.fixture
async def broker(baseline: dict[int, str]) -> AsyncIterator[Broker]:
    """A broker with short leases at a free port, settled at once, so that unknown names are known to be unknown."""
    options = BrokerOptions(heartbeat_s=0.2, lease_s=0.6, grace_leases=0.0)
    async with Broker("tcp://127.0.0.1:0", options=options) as made:
        yield made


@pytest.fixture(params=["direct", "relay"])
async def client(broker: Broker, request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    """A client, through each route in turn: what it sees is the same."""
    async with AsyncClient(broker.endpoint, options=ClientOptions(route=request.param)) as made:
        yield made


@pytest.fixture
def reached(broker: Broker) -> Callable[[AsyncClient], int]:
    """How many instances a client's calls can go to now, through whichever route."""

    def count(client: AsyncClient) -> int:
        if client.options.route == "relay":
            return sum(relay["connected"] for relay in broker.statistics()["relays"])
        return sum(state == "ready" for state in client.statistics()["peers"].values())

    return count


@pytest.fixture
def echo() -> Service:
    """The service that most tests call."""
    service = Service("echo")

    @service.method
    async def back(payload: bytes) -> bytes:
        return payload

    @service.method
    def hello(name: str, greeting: str = "Hello") -> str:
        return f"{greeting}, {name}!"

    @service.method
    async def add(a: int, b: int = 2, c: int = 3) -> int:
        return a + b + c

    @service.method
    async def fail(text: str) -> None:
        raise LookupError(text)

    @service.method
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    @service.method
    async def unsendable() -> object:
        return object()

    @service.method
    async def large(size: int) -> bytes:
        return bytes(size)

    return service


@pytest.fixture
async def server(broker: Broker, echo: Service) -> AsyncIterator[Server]:
    async with Server(echo, broker=broker.endpoint, options=ServiceOptions(drain_s=0)) as made:
        yield made
