"""Ending in order, by `datacenter drain` and by SIGTERM: nothing fails, nothing is lost, and the process ends soon."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from datacenter import AsyncClient, Broker, ClientOptions, Server, Service, ServiceOptions
from datacenter.client.route import RouteChoice
from datacenter.testing import Launcher, Process, RunningBroker, RunningService
from said import said

Until = Callable[[Callable[[], object], str], Awaitable[None]]

WORK = """
import asyncio, os
from datacenter import Service
work = Service("work")
other = Service("other")


@work.method
async def pid() -> int:
    return os.getpid()


@work.method
async def nap(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@other.method
async def here() -> int:
    return os.getpid()
"""
#: calls at a time, without pause
IN_FLIGHT = 50


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    (tmp_path / "work.py").write_text(WORK)
    with Launcher(cwd=tmp_path) as launcher:
        yield launcher


@pytest.fixture
def work_broker(launch: Launcher) -> RunningBroker:
    return launch.broker(options=("--lease-s", "60"))


def serve(launch: Launcher, broker: RunningBroker, *options: str, target: str = "work:work") -> RunningService:
    return launch.service(target, broker, options=options or ("--drain-s", "10"))


def drain(launch: Launcher, broker: RunningBroker, target: str, *options: str) -> Process:
    return launch.command("drain", target, "--broker", broker.address, *options)


def identity(launch: Launcher, broker: RunningBroker, pid: int) -> str:
    """The id of the instance that a process is."""
    listing = launch.command("ls", "--json", "--broker", broker.address)
    _, found = listing.wait_line("^{.*}$")
    instances = [instance for service in json.loads(found[0])["services"] for instance in service["instances"]]
    (id_,) = [instance["id"] for instance in instances if instance["pid"] == pid]
    return str(id_)


@asynccontextmanager
async def load(client: AsyncClient, answers: Counter[int]) -> AsyncIterator[None]:
    """Calls without pause meanwhile. The first that fails ends the test."""
    stop = asyncio.Event()

    async def call() -> None:
        while not stop.is_set():
            answers[await client.call("work.pid", returns=int)] += 1

    tasks = [asyncio.create_task(call()) for _ in range(IN_FLIGHT)]
    yield
    stop.set()
    await asyncio.gather(*tasks)


async def ended(process: Process, until: Until) -> int:
    await until(lambda: not process.running, "it has ended")
    return process.wait()


# --- the command


@pytest.mark.parametrize("route", ["direct", "relay"])
@pytest.mark.parametrize("how", ["drain", "SIGTERM"])
def test_one_of_three_ends_under_load_and_no_call_fails(
    launch: Launcher, work_broker: RunningBroker, until: Until, how: str, route: RouteChoice
) -> None:
    async def main() -> None:
        answers: Counter[int] = Counter()
        options = ClientOptions(route=route)
        async with AsyncClient(work_broker.address, options=options) as client, load(client, answers):
            await until(lambda: min(answers[service.pid] for service in services) > 50, "all three work")
            if how == "drain":
                command = drain(launch, work_broker, id_, "--json")
                assert await ended(command, until) == 0, command.errors
                told = json.loads(command.lines[0][1])
                assert (told["schema"], told["service"], told["left"]) == (1, "work", [])
                assert [(row["id"], row["pid"]) for row in told["drained"]] == [(id_, first.pid)]
            else:
                first.signal(signal.SIGTERM)
            assert await ended(first, until) == 0, first.errors
            before = answers.copy()
            await until(lambda: min(answers[o.pid] - before[o.pid] for o in others) > 50, "the others go on")
        assert client.statistics()["lost"] == 0

    services = [serve(launch, work_broker) for _ in range(3)]
    first, *others = services
    id_ = identity(launch, work_broker, first.pid)
    asyncio.run(main())
    assert said(first.errors) == ""


def test_a_service_is_drained_as_a_whole_and_calls_that_run_are_finished(
    launch: Launcher, work_broker: RunningBroker, until: Until
) -> None:
    async def main() -> None:
        async with AsyncClient(work_broker.address) as client:
            await client.call("work.pid")
            await until(lambda: [*client.statistics()["peers"].values()].count("ready") == 2, "both are connected")
            naps = [client.call("work.nap", 1.0, returns=int) for _ in range(4)]
            command = drain(launch, work_broker, "work")
            assert await ended(command, until) == 0, command.errors
            assert sorted(line.split()[0:1] for _, line in command.lines) == [["drained"]] * 2
            # It outlasts the end of both services and the start of another process, however slow the machine is.
            waiting = client.call("work.pid", returns=int, deadline_s=60)
            assert sorted(await asyncio.gather(*naps)) == sorted([service.pid for service in services] * 2)
            for service in services:
                assert await ended(service, until) == 0
            assert not waiting.done()  # nobody serves it now, and it has time
            last = serve(launch, work_broker)
            assert await waiting == last.pid

    services = [serve(launch, work_broker) for _ in range(2)]
    asyncio.run(main())


def test_a_process_ends_when_all_its_services_were_drained(
    launch: Launcher, work_broker: RunningBroker, until: Until
) -> None:
    both = launch.start_service("work:work", work_broker, options=("work:other",))
    both.wait_line("^serving work, other at")

    async def main() -> None:
        async with AsyncClient(work_broker.address) as client:
            assert await client.call("work.pid") == both.pid
            assert await ended(drain(launch, work_broker, "work"), until) == 0
            assert await client.call("other.here") == both.pid
            waiting = client.call("work.pid")
            assert await ended(drain(launch, work_broker, "other"), until) == 0
            assert await ended(both, until) == 0
            waiting.cancel()

    asyncio.run(main())


def test_an_instance_that_does_not_answer_is_named(launch: Launcher, work_broker: RunningBroker) -> None:
    stopped, willing = serve(launch, work_broker), serve(launch, work_broker)
    stopped.signal(signal.SIGSTOP)
    command = drain(launch, work_broker, "work", "--deadline-s", "1")
    assert command.wait() == 1
    assert f"kill {stopped.pid}" in command.errors
    assert [line.split()[3] for _, line in command.lines] == [str(willing.pid)]
    assert willing.wait() == 0


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("nobody",), 2, "no service and no instance named 'nobody'"),
        ((), 2, "SERVICE|INSTANCE_ID"),
        (("work", "--deadline-s", "0"), 2, "--deadline-s"),
        (("gone",), 0, "nobody serves gone now"),
    ],
    ids=str,
)
def test_a_drain_that_has_nothing_to_do(
    launch: Launcher, tmp_path: Path, words: tuple[str, ...], status: int, text: str
) -> None:
    (tmp_path / "gone.py").write_text("from datacenter import Service\ngone = Service('gone')\n")
    broker = launch.broker(options=("--lease-s", "0.6"))
    if "gone" in words:
        assert serve(launch, broker, target="gone:gone").end() == 0
    command = launch.command("drain", "--broker", broker.address, *words)
    assert command.wait() == status
    assert text in command.errors
    assert "Traceback" not in command.errors


# --- late callers


@pytest.mark.parametrize("route", ["direct", "relay"])
def test_a_client_that_has_not_heard_yet_loses_no_call(
    launch: Launcher, work_broker: RunningBroker, route: RouteChoice
) -> None:
    first = serve(launch, work_broker)

    async def main() -> None:
        async with AsyncClient(work_broker.address, options=ClientOptions(route=route)) as client:
            assert await client.call("work.pid") == first.pid
            second = serve(launch, work_broker)
            # The loop of this client does not turn meanwhile: it hears of nothing.
            command = drain(launch, work_broker, id_)
            assert command.wait() == 0
            assert await client.call("work.pid", deadline_s=20) == second.pid
            assert client.statistics()["lost"] == 0

    id_ = identity(launch, work_broker, first.pid)
    asyncio.run(main())
    assert first.wait() == 0


# --- signals


def test_a_second_signal_ends_it_at_once(launch: Launcher, work_broker: RunningBroker, until: Until) -> None:
    service = serve(launch, work_broker, "--drain-s", "1000")

    async def main() -> None:
        async with AsyncClient(work_broker.address) as client:
            call = client.call("work.nap", 1000, deadline_s=1000)
            await until(lambda: client.statistics()["peers"] == {service.endpoint: "ready"}, "it is connected")
            await client.call("work.pid")  # behind the other one, so that one runs
            service.signal(signal.SIGTERM)
            await until(lambda: client._routes.by_name["work"].endpoints == (), "it has left the registry")
            assert service.running
            assert not call.done()
            service.signal(signal.SIGINT)
            assert await ended(service, until) == 0
            (error,) = await asyncio.gather(call, return_exceptions=True)
            assert "ended while nap was running" in str(error)

    asyncio.run(main())


# --- a server inside a program


async def test_a_server_inside_a_program_tells_when_it_was_drained(
    broker: Broker, client: AsyncClient, echo: Service, until: Until
) -> None:
    async with Server(echo, broker=broker.endpoint, options=ServiceOptions(drain_s=10)) as server:
        assert await client.call("echo.add", 1) == 6
        drained = asyncio.ensure_future(server.drained())
        answer = await asyncio.wrap_future(client._session.drain("echo"))
        assert [instance.endpoint for instance in answer.instances] == [server.endpoint]
        await asyncio.wait_for(drained, 20)
        assert "closed" in repr(server)
        assert broker.statistics()["instances"] == 0
    await server.drained()  # at once, again and again


async def test_a_server_that_closes_without_a_broker_does_not_come_back(
    broker: Broker, echo: Service, until: Until
) -> None:
    """Its session goes on, for a client in the same process, and must not register it again."""
    first = Broker("tcp://127.0.0.1:0")
    first.start()
    async with AsyncClient(first.endpoint) as client:
        async with Server(echo, broker=first.endpoint, options=ServiceOptions(drain_s=0)):
            assert await client.call("echo.add", 1) == 6
            await first.close()
            await until(lambda: client._session.state != "connected", "the broker is away")
        async with Broker(first.endpoint) as second:
            await until(lambda: second.statistics()["watchers"] == 1, "the session is back")
            assert second.statistics()["instances"] == 0
