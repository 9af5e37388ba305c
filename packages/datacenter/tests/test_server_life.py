"""A Server from its declaration to its end: what is refused before it starts, and every way of closing it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from datacenter import AsyncClient, Broker, BrokerOptions, Server, Service, ServiceOptions, runtime
from datacenter.errors import (
    AddressError,
    BadOptionError,
    ClosedError,
    LostError,
    NotServableError,
)
from datacenter.testing import Launcher, free_port

Until = Callable[[Callable[[], object], str], Awaitable[None]]

NO_DRAIN = ServiceOptions(drain_s=0)


def users() -> int:
    """How many brokers, servers and clients hold the runtime of this process."""
    return runtime._current._users if runtime._current is not None else 0


def numbered(number: int) -> Service:
    service = Service("shared")

    @service.method
    async def which() -> int:
        return number

    return service


# --- declaration


@pytest.mark.parametrize("metadata", [{"weight": 3}, {3: "weight"}, {"weight": object()}], ids=["int", "key", "object"])
def test_metadata_that_is_no_text_is_refused_at_declaration(metadata: Any) -> None:
    with pytest.raises(NotServableError, match="is no text"):
        Service("weighted", metadata=metadata)


async def test_metadata_of_text_reaches_who_resolves(broker: Broker, client: AsyncClient) -> None:
    async with Server(Service("weighted", metadata={"weight": "3"}), broker=broker.endpoint, options=NO_DRAIN):
        assert (await client.resolve("weighted")).instances[0].metadata == {"weight": "3"}


def test_generators_are_refused_at_declaration() -> None:
    service = Service("streams")

    def numbers() -> Iterator[int]:
        yield 1

    async def later_numbers() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, later_numbers):
        with pytest.raises(NotServableError, match="is a generator"):
            service.method(function)
    assert service.methods == {}


def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(NotServableError, match="two services are named 'shared'"):
        Server([numbered(1), numbered(2)])


# --- start


def test_a_server_without_threads_is_refused() -> None:
    with pytest.raises(BadOptionError, match="threads=0"):
        Server(numbered(1), options=ServiceOptions(threads=0))


async def test_a_server_starts_once(broker: Broker) -> None:
    before = users()
    async with Server(numbered(1), broker=broker.endpoint, options=NO_DRAIN) as server:
        with pytest.raises(ClosedError, match="Make a new Server"):
            server.start()
        assert users() == before + 1
    with pytest.raises(ClosedError, match="Make a new Server"):
        server.start()
    assert users() == before


async def test_every_address_of_the_machine_needs_one_that_clients_can_use(broker: Broker, client: AsyncClient) -> None:
    before = users()
    with pytest.raises(AddressError, match="--advertise"):
        Server(numbered(1), broker=broker.endpoint, listen="tcp://0.0.0.0:0", insecure=True).start()
    assert users() == before
    port = free_port()
    advertised = f"tcp://127.0.0.1:{port}"
    server = Server(
        numbered(1),
        broker=broker.endpoint,
        listen=f"tcp://0.0.0.0:{port}",
        advertise=advertised,
        insecure=True,
        options=NO_DRAIN,
    )
    async with server:
        assert (await client.resolve("shared")).instances[0].endpoint == advertised
        assert await client.call("shared.which") == 1


async def test_who_stops_waiting_for_the_registration_may_wait_again() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    server = Server(numbered(1), broker=address, options=NO_DRAIN)
    server.start()
    try:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(server.registered(), 0.05)
        async with Broker(address, options=BrokerOptions(grace_leases=0)) as broker:
            await server.registered()
            assert broker.statistics()["instances"] == 1
    finally:
        await server.close()


# --- end


async def test_several_callers_close_at_once_and_it_is_closed_once(
    broker: Broker, client: AsyncClient, until: Until
) -> None:
    release = asyncio.Event()
    service = Service("slow")

    @service.method
    async def wait() -> str:
        await release.wait()
        return "finished"

    server = Server(service, broker=broker.endpoint, options=ServiceOptions(drain_s=30))
    server.start()
    await server.registered()
    before = users()
    call = client.call("slow.wait")
    await until(lambda: server.statistics()["in_flight"] == 1, "the call runs")
    closing = [asyncio.ensure_future(server.close()) for _ in range(3)]
    await until(lambda: broker.statistics()["instances"] == 0, "it has left the registry")
    assert not any(task.done() for task in closing)  # each waits for the same end
    release.set()
    await asyncio.gather(*closing)
    assert await call == "finished"
    assert users() == before - 1
    assert (await client.resolve("slow")).state == "away"  # what the process shares is still there


async def test_a_method_closes_its_own_server(broker: Broker, client: AsyncClient, until: Until) -> None:
    service = Service("suicidal")

    @service.method
    async def end() -> None:
        await server.close(drain_s=0.05)

    server = Server(service, broker=broker.endpoint)
    server.start()
    await server.registered()
    before = users()
    with pytest.raises(LostError):
        await client.call("suicidal.end")
    await until(lambda: users() == before - 1, "all is given back, once")
    await server.close()
    assert users() == before - 1
    assert "closed" in repr(server)


def test_a_close_that_is_cancelled_while_it_leaves_closes_all_the_same() -> None:
    with Launcher() as launch:
        broker = launch.broker()

        async def main() -> None:
            server = Server(numbered(1), broker=broker.address)
            server.start()
            await server.registered()
            broker.signal(signal.SIGSTOP)  # it will not say that the instance is unregistered
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(server.close(), 0.05)
            assert "closed" in repr(server)
            assert users() == 0

        asyncio.run(main())


async def test_ending_in_order_under_load_loses_no_call(broker: Broker, client: AsyncClient) -> None:
    stop = asyncio.Event()
    answers = {1: 0, 2: 0}

    async def load() -> None:
        while not stop.is_set():
            answers[await client.call("shared.which", returns=int)] += 1  # LostError or BusyError would end the test

    async def enough_of(number: int) -> None:
        enough = answers[number] + 500
        while answers[number] < enough:
            assert not any(task.done() for task in tasks), tasks
            await asyncio.sleep(0.005)

    tasks: list[asyncio.Task[None]] = []
    async with Server(numbered(1), broker=broker.endpoint):
        await client.call("shared.which")
        tasks += [asyncio.create_task(load()) for _ in range(200)]
        for _ in range(4):
            async with Server(numbered(2), broker=broker.endpoint):
                await asyncio.wait_for(enough_of(2), 20)
        await asyncio.wait_for(enough_of(1), 20)
        stop.set()
        await asyncio.gather(*tasks)
    assert client.statistics()["lost"] == 0


async def test_calls_that_reach_a_server_which_ends_are_done_by_another(
    broker: Broker, client: AsyncClient, until: Until
) -> None:
    release = asyncio.Event()
    service = Service("shared")

    @service.method
    async def which() -> int:
        await release.wait()
        return 1

    ending = Server(service, broker=broker.endpoint, options=ServiceOptions(drain_s=30))
    ending.start()
    await ending.registered()
    running = client.call("shared.which")
    await until(lambda: ending.statistics()["in_flight"] == 1, "a call runs")
    ending._draining.add("shared")  # it ends, and nobody knows yet
    moved = client.call("shared.which")
    await until(lambda: ending.statistics()["calls"] == 2, "the next call comes too late")
    async with Server(numbered(2), broker=broker.endpoint, options=NO_DRAIN):
        assert await moved == 2
        release.set()
        assert await running == 1
        await ending.close()
