"""An instance knows how long it is certainly registered, and a leased service answers only then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from datacenter import AsyncClient, Broker, Server, Service, ServiceOptions, clock
from datacenter.errors import DeadlineError, LostError, MovedError

Until = Callable[[Callable[[], object], str], Awaitable[None]]


@pytest.fixture
def ledger_service() -> Service:
    service = Service("accounts", leased=True)

    @service.method
    async def book(amount: int) -> int:
        return amount

    @service.method
    async def book_when(gate: str) -> str:
        await GATES[gate].wait()
        return gate

    return service


GATES: dict[str, asyncio.Event] = {}


async def test_a_lease_is_certain_while_heartbeats_are_answered(broker: Broker, echo: Service, until: Until) -> None:
    async with Server(echo, broker=broker.endpoint, options=ServiceOptions(drain_s=0)) as server:
        await until(lambda: server.lease_left_s("echo") > 0, "a heartbeat is answered")
        assert server.lease_left_s("echo") <= broker.options.lease_s
        assert server.lease_left_s("nothing") == 0
        await broker.close()
        await until(lambda: server.lease_left_s("echo") == 0, "nothing is certain without a broker")


async def test_a_leased_service_serves_and_refuses_unexecuted_when_nothing_is_certain(
    broker: Broker, ledger_service: Service, until: Until
) -> None:
    async with (
        Server(ledger_service, broker=broker.endpoint, options=ServiceOptions(drain_s=0)) as server,
        AsyncClient(broker.endpoint) as client,
    ):
        await until(lambda: server.lease_left_s("accounts") > 0, "a heartbeat is answered")
        assert await client.call("accounts.book", 1) == 1
        calls = server.statistics()["calls"]
        GATES["gate"] = asyncio.Event()
        waiting = client.call("accounts.book_when", "gate", deadline_s=20)
        await until(lambda: server.statistics()["in_flight"] == 1, "it runs")
        await broker.close()
        await until(lambda: server.lease_left_s("accounts") == 0, "nothing is certain any more")
        GATES.pop("gate").set()
        with pytest.raises(LostError, match="the lease of accounts ended while book_when ran"):
            await waiting
        with pytest.raises((MovedError, DeadlineError)):
            await client.call("accounts.book", 2, deadline_s=0.3)
        assert server.statistics()["refused"] >= 1
        assert server.statistics()["calls"] > calls


def test_the_clock_of_leases_does_not_go_back() -> None:
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(times)
