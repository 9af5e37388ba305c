"""Several brokers that share one registry in ZooKeeper, as services and clients see them: real sockets, real server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from datacenter import AsyncClient, Broker, BrokerOptions, ClientOptions, Server, Service, ServiceOptions
from datacenter.errors import AddressError, BrokerUnreachableError, InsecureAddressError, RegistryUnreachableError
from datacenter.testing import Ensemble, free_port

Until = Callable[[Callable[[], object], str], Awaitable[None]]
OPTIONS = BrokerOptions(heartbeat_s=0.2, lease_s=0.6, zookeeper_session_s=2.0)


@pytest.fixture
async def brokers(baseline: dict[int, str], location: str) -> AsyncIterator[list[Broker]]:
    made = [Broker("tcp://127.0.0.1:0", registry=location, options=OPTIONS) for _ in range(2)]
    for each in made:
        await each.__aenter__()
    yield made
    for each in made:
        await each.close()


def both(brokers: list[Broker]) -> str:
    return ",".join(each.endpoint for each in brokers)


def by_address(brokers: list[Broker], session: Any) -> Broker:
    return next(each for each in brokers if each.endpoint == session.numeric_address)


async def test_a_service_at_one_broker_is_called_through_another_and_every_descriptor_is_in_the_ledger(
    brokers: list[Broker], echo: Service, at_rest: Callable[[], Awaitable[None]]
) -> None:
    async with Server(echo, broker=brokers[0].endpoint, options=ServiceOptions(drain_s=0)):
        for route in ("direct", "relay"):
            async with AsyncClient(brokers[1].endpoint, options=ClientOptions(route=route)) as client:
                assert await client.call("echo.add", 1) == 6
    await at_rest()


async def test_client_and_service_move_on_when_their_broker_ends(
    brokers: list[Broker], echo: Service, until: Until
) -> None:
    async with (
        Server(echo, broker=both(brokers), options=ServiceOptions(drain_s=0)) as server,
        AsyncClient(both(brokers)) as client,
    ):
        assert await client.call("echo.add", 1) == 6
        first = by_address(brokers, client._session)
        before = await client.resolve("echo")
        await first.close()
        (left,) = [each for each in brokers if each is not first]
        await until(lambda: left.statistics()["sessions"] == 1, "the session is at the other broker")
        await until(lambda: server.lease_left_s("echo") > 0, "the instance is registered there")
        await until(lambda: left.statistics()["own_instances"] == 1, "as its own")
        assert await client.call("echo.add", 1) == 6
        after = await client.resolve("echo")
        assert after.version > before.version
        assert after.instances[0].epoch > before.instances[0].epoch


async def test_a_broker_that_takes_no_connection_is_passed_over(
    brokers: list[Broker], echo: Service, until: Until
) -> None:
    addresses = f"tcp://127.0.0.1:{free_port()},{brokers[0].endpoint}"
    async with (
        Server(echo, broker=brokers[1].endpoint, options=ServiceOptions(drain_s=0)),
        AsyncClient(addresses) as client,
    ):
        client._runtime.reactor.call(client._session._drop, "so that each address was tried")
        assert await client.call("echo.add", 1) == 6


async def test_who_lost_zookeeper_sends_everybody_away_and_takes_them_back(
    brokers: list[Broker], echo: Service, ensemble: Ensemble, until: Until
) -> None:
    async with (
        Server(echo, broker=brokers[0].endpoint, options=ServiceOptions(drain_s=0)) as server,
        AsyncClient(brokers[1].endpoint) as client,
    ):
        await client.call("echo.add", 1)
        epoch = (await client.resolve("echo")).instances[0].epoch
        expire(brokers[0])
        await until(lambda: server.lease_left_s("echo") == 0, "the instance hears that its lease is lost")
        assert await client.call("echo.add", 1) == 6  # it serves on all the same
        await until(lambda: brokers[0].statistics()["own_instances"] == 1, "it is registered again")

        async def again() -> bool:
            found = await client.resolve("echo")
            return bool(found.instances) and found.instances[0].epoch > epoch

        end = time.monotonic() + 20
        while not await again():
            assert time.monotonic() < end
            await asyncio.sleep(0.01)


def expire(broker: Broker) -> None:
    """Ends the broker's session at the server, as its expiry does, by a second connection of the same session."""
    from kazoo.client import KazooClient

    assert broker._zookeeper is not None
    zk = broker._zookeeper._zk
    twin = KazooClient(hosts=zk.hosts[0][0] + f":{zk.hosts[0][1]}", client_id=zk.client_id)
    twin.start()
    twin.stop()
    twin.close()


async def test_a_child_never_ends_the_session_of_its_parent(
    brokers: list[Broker], ensemble: Ensemble, echo: Service, at_rest: Callable[[], Awaitable[None]]
) -> None:
    (server,) = ensemble.servers

    def sessions() -> set[str]:
        return {line.partition("sid=")[2].partition(",")[0] for line in server.connections()}

    async with Server(echo, broker=brokers[0].endpoint, options=ServiceOptions(drain_s=0)) as serving:
        before = await asyncio.to_thread(sessions)
        for turn in range(100):
            child = os.fork()
            if child == 0:
                left = sum(os.readlink(f"/proc/self/fd/{number}").startswith("socket:") for number in numbers())
                os._exit(left > ALLOWED_SOCKETS)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222  (it ends at once)
            if turn % 10 == 0:
                await asyncio.sleep(0)
        async with AsyncClient(brokers[1].endpoint) as client:
            assert await client.call("echo.add", 1) == 6
        assert serving.lease_left_s("echo") >= 0
        # By the server's books. (A machine under load may end a connection, and begin another, in one session.)
        end = time.monotonic() + 20
        while (after := await asyncio.to_thread(sessions)) != before:
            assert time.monotonic() < end, f"{after} instead of {before}"
    await at_rest()


#: the test's own event loop has a socket pair
ALLOWED_SOCKETS = 2


def numbers() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]


async def test_addresses_that_cannot_be_and_servers_that_do_not_answer_are_told(baseline: dict[int, str]) -> None:
    for wrong in ("redis://127.0.0.1", "zookeeper://", "zookeeper://127.0.0.1:99999", "zookeeper://127.0.0.1/a//b", ""):
        with pytest.raises(AddressError):
            Broker("tcp://127.0.0.1:0", registry=wrong)
    with pytest.raises(InsecureAddressError, match="over the network"):
        Broker("tcp://127.0.0.1:0", registry="zookeeper://192.0.2.1:2181")
    nowhere = f"zookeeper://127.0.0.1:{free_port()}/a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datacenter.options.CONNECT_DEADLINE_S", 0.3)
        with pytest.raises(RegistryUnreachableError, match="no ZooKeeper answered"):
            async with Broker("tcp://127.0.0.1:0", registry=nowhere):
                pass
    broker = Broker("tcp://127.0.0.1:0", registry=nowhere)
    broker.start()
    try:
        async with AsyncClient(broker.endpoint) as client:
            with pytest.raises((BrokerUnreachableError, RegistryUnreachableError)):
                await client.call("echo.add", 1, deadline_s=0.5)
    finally:
        await broker.close()
