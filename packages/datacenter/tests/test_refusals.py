"""Calls that an instance refuses unexecuted are done by another one; each is asked once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from datacenter import AsyncClient, Broker, ClientOptions, Server
from datacenter.errors import BusyError
from datacenter.testing import Launcher, Process, RunningBroker

Until = Callable[[Callable[[], object], str], Awaitable[None]]

#: one call at a time; each execution is a line in a file
NARROW = """
import asyncio, os, sys
from datacenter import Server, Service, ServiceOptions

narrow = Service("narrow")
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
release = asyncio.Event()


@narrow.method
async def hold(name: str) -> int:
    os.write(log, f"{name} {os.getpid()}\\n".encode())
    await release.wait()
    return os.getpid()


async def main() -> None:
    async with Server(narrow, broker=sys.argv[1], options=ServiceOptions(max_in_flight=1)) as server:
        print("serving", flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.readline)
        release.set()
        await loop.run_in_executor(None, sys.stdin.readline)
        print("refused", server.statistics()["refused"], flush=True)


asyncio.run(main())
"""


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    (tmp_path / "narrow.py").write_text(NARROW)
    with Launcher(cwd=tmp_path) as launcher:
        yield launcher


@pytest.fixture
def narrow_broker(launch: Launcher) -> RunningBroker:
    return launch.broker()


@pytest.fixture
def instances(launch: Launcher, narrow_broker: RunningBroker) -> list[Process]:
    started = [launch.python("narrow.py", narrow_broker.address, "executed") for _ in range(3)]
    for process in started:
        process.wait_line("^serving$")
    return started


def executed(tmp_path: Path) -> list[str]:
    path = tmp_path / "executed"
    return path.read_text().splitlines() if path.exists() else []


def refusals(instances: list[Process]) -> list[int]:
    for process in instances:
        process.tell("")
        process.tell("")
    return [int(process.wait_line(r"^refused (\d+)$")[1][1]) for process in instances]


async def connected(client: AsyncClient, count: int, until: Until) -> None:
    await client.resolve("narrow")
    with pytest.raises(Exception, match="no method"):
        await client.call("narrow.nothing")  # makes the route, and the connections
    await until(lambda: list(client.statistics()["peers"].values()) == ["ready"] * count, "all are connected")


def test_a_busy_instance_is_passed_over_and_each_is_asked_once(
    narrow_broker: RunningBroker, instances: list[Process], tmp_path: Path, until: Until
) -> None:
    async def main() -> None:
        async with AsyncClient(narrow_broker.address) as client, AsyncClient(narrow_broker.address) as other:
            await connected(client, 3, until)
            await connected(other, 3, until)
            taken = [client.call("narrow.hold", "client") for _ in range(2)]
            await until(lambda: len(executed(tmp_path)) == 2, "two of three are taken")
            # The other client knows nothing of that: whoever it asks first, the free one gets its call.
            taken.append(other.call("narrow.hold", "other"))
            await until(lambda: len(executed(tmp_path)) == 3, "the third is taken")
            before = await asyncio.gather(
                *[other.call("narrow.hold", "none", deadline_s=5) for _ in range(20)], return_exceptions=True
            )
            assert {type(error) for error in before} == {BusyError}
            counts = refusals(instances)
            assert sum(counts) <= 20 * 3 + 2  # and two more, before the other client found the free one
            assert min(counts) >= 20
            assert sorted(await asyncio.gather(*taken)) == sorted(process.pid for process in instances)

    asyncio.run(main())
    assert Counter(line.split()[0] for line in executed(tmp_path)) == {"client": 2, "other": 1}


def test_a_relay_is_asked_as_often_as_there_are_instances(
    narrow_broker: RunningBroker, instances: list[Process], tmp_path: Path, until: Until
) -> None:
    async def main() -> None:
        async with AsyncClient(narrow_broker.address, options=ClientOptions(route="relay")) as client:
            taken = []
            for number in range(3):  # the relay knows who has calls, so each goes to a free one
                taken.append(client.call("narrow.hold", "client"))
                await until(lambda wanted=number + 1: len(executed(tmp_path)) == wanted, "it runs")  # type: ignore[misc]
            refused = await asyncio.gather(
                *[client.call("narrow.hold", "none", deadline_s=5) for _ in range(10)], return_exceptions=True
            )
            assert {type(error) for error in refused} == {BusyError}
            assert sum(refusals(instances)) == 10 * 3
            assert sorted(await asyncio.gather(*taken)) == sorted(process.pid for process in instances)

    asyncio.run(main())
    assert Counter(line.split()[0] for line in executed(tmp_path)) == {"client": 3}


def test_an_instance_that_is_not_connected_yet_is_waited_for_a_moment(
    narrow_broker: RunningBroker, launch: Launcher, tmp_path: Path, until: Until
) -> None:
    async def main(first: Process) -> None:
        async with AsyncClient(narrow_broker.address) as client:
            await connected(client, 1, until)
            taken = client.call("narrow.hold", "first")
            await until(lambda: executed(tmp_path), "the only instance is taken")
            second = launch.python("narrow.py", narrow_broker.address, "executed")
            (known,) = client._routes.by_name.values()
            while len(known.endpoints) == 1:  # noqa: ASYNC110 - the moment at which the client has just heard of it
                await asyncio.sleep(0)
            assert len(known.peers) == 1
            also = client.call("narrow.hold", "second", deadline_s=10)
            await until(lambda: len(executed(tmp_path)) == 2, "it went to the second")
            refusals([first, second])
            assert await taken == first.pid
            assert await also == second.pid

    first = launch.python("narrow.py", narrow_broker.address, "executed")
    first.wait_line("^serving$")
    asyncio.run(main(first))


async def test_a_call_that_a_relay_brings_to_an_instance_which_ends_is_brought_again(
    broker: Broker, server: Server, until: Until
) -> None:
    async with AsyncClient(broker.endpoint, options=ClientOptions(route="relay")) as client:
        assert await client.call("echo.add", 1) == 6
        server._draining.add("echo")  # it ends, and neither broker nor relay knows yet
        call = client.call("echo.add", 2, deadline_s=20)
        before = server.statistics()["calls"]
        await until(lambda: server.statistics()["calls"] > before + 2, "it is brought again and again")
        server._draining.clear()  # as if the relay had found another one
        assert await call == 7
        assert client._routes.by_name["echo"].avoid == set()
