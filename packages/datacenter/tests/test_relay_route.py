"""The relay route from end to end: who gets a relay, when it ends, what happens when it cannot be had."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datacenter import AsyncClient, Broker, BrokerOptions, ClientOptions, Server, Service
from datacenter.broker.relay_manager import RelayManagerOptions
from datacenter.errors import BadOptionError, NoRelayError
from datacenter.listening import reached_by_way_of
from datacenter.testing import Launcher, namespaces

Until = Callable[[Callable[[], object], str], Awaitable[None]]
AtRest = Callable[[], Awaitable[None]]

QUICK = BrokerOptions(heartbeat_s=0.2, lease_s=0.6, grace_leases=0.0)
GREETER = """
from datacenter import Service

greeter = Service("greeter")


@greeter.method
async def hello(name: str) -> str:
    return f"Hello, {name}!"
"""


def through(route: Any) -> ClientOptions:
    return ClientOptions(route=route)


def relays(broker: Broker) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = broker.statistics()["relays"]
    return found


async def test_a_service_has_a_relay_once_a_client_asks_for_it(
    broker: Broker, server: Server, until: Until, at_rest: AtRest
) -> None:
    async with AsyncClient(broker.endpoint, options=through("direct")) as direct:
        assert await direct.call("echo.add", 1) == 6
        assert relays(broker) == []
        async with AsyncClient(broker.endpoint, options=through("relay")) as relayed:
            assert await relayed.call("echo.add", 2) == 7
            (relay,) = relays(broker)
            assert relay["service"] == "echo"
            assert relay["counts"]["calls"] == 1
            assert list(relayed.statistics()["peers"]) == [relay["endpoint"]]
            assert relay["endpoint"] not in direct.statistics()["peers"]
            assert await direct.call("echo.add", 1) == 6
            await until(lambda: relays(broker)[0]["counts"]["replies"] == 1, "only the other's calls went there")
            await at_rest()


async def test_the_relays_of_a_broker_at_all_addresses_are_reached_where_it_is(
    echo: Service, baseline: dict[int, str]
) -> None:
    async with Broker("tcp://0.0.0.0:0", options=QUICK, insecure=True) as broker:
        address = broker.endpoint.replace("0.0.0.0", "localhost")
        async with (
            Server(echo, broker=address),
            AsyncClient(address, options=through("relay")) as client,  # not insecure: it may only go to loopback
        ):
            assert await client.call("echo.add", 1) == 6
            (relay,) = relays(broker)
            assert relay["endpoint"].startswith("tcp://0.0.0.0:")
            assert list(client.statistics()["peers"]) == [relay["endpoint"].replace("0.0.0.0", "127.0.0.1")]


@pytest.mark.parametrize(
    ("told", "broker", "reached"),
    [
        ("tcp://0.0.0.0:9", "tcp://192.0.2.1:7700", "tcp://192.0.2.1:9"),
        ("tcp://*:9", "tcp://192.0.2.1:7700", "tcp://192.0.2.1:9"),
        ("tcp://[::]:9", "tcp://[2001:db8::1]:7700", "tcp://[2001:db8::1]:9"),
        ("tcp://192.0.2.2:9", "tcp://192.0.2.1:7700", "tcp://192.0.2.2:9"),
        ("tcp://127.0.0.1:9", "ipc:///run/broker.sock", "tcp://127.0.0.1:9"),
        ("", "tcp://192.0.2.1:7700", ""),
    ],
)
def test_where_a_relay_is_reached(told: str, broker: str, reached: str) -> None:
    assert reached_by_way_of(told, broker) == reached


async def test_many_names_get_their_relays_at_once(broker: Broker, until: Until, at_rest: AtRest) -> None:
    def named(name: str) -> Service:
        service = Service(name)

        @service.method
        async def who() -> str:
            return name

        return service

    names = [f"service-{number}" for number in range(20)]
    async with (
        Server([named(name) for name in names], broker=broker.endpoint),
        AsyncClient(broker.endpoint, options=through("relay")) as one,
        AsyncClient(broker.endpoint, options=through("relay")) as two,
    ):
        calls = [client.call(f"{name}.who") for name in names for client in (one, two)]
        assert await asyncio.gather(*calls) == [name for name in names for _ in range(2)]
        assert sorted(relay["service"] for relay in relays(broker)) == sorted(names)
        await at_rest()


async def test_a_relay_that_nobody_serves_ends_and_is_made_again(
    echo: Service, until: Until, baseline: dict[int, str]
) -> None:
    options = replace(QUICK, relays=RelayManagerOptions(relay_idle_s=0.1))
    async with (
        Broker("tcp://127.0.0.1:0", options=options) as broker,
        AsyncClient(broker.endpoint, options=through("relay")) as client,
    ):
        for number in range(2):
            async with Server(echo, broker=broker.endpoint):
                assert await client.call("echo.add", number) == 5 + number
            await until(lambda: relays(broker) == [], "the relay has ended")
            await until(lambda: client.statistics()["peers"] == {}, "its client has let go of it")


async def test_a_relay_that_ends_by_itself_is_replaced(broker: Broker, server: Server, until: Until) -> None:
    async with AsyncClient(broker.endpoint, options=through("relay")) as client:
        assert await client.call("echo.add", 1) == 6
        former = relays(broker)[0]["endpoint"]
        relay = broker._relays._manager.get("echo")
        assert relay is not None
        assert relay.stop().clean
        await until(lambda: [relay["endpoint"] for relay in relays(broker)] not in ([], [former]), "it is replaced")
        assert await client.call("echo.add", 2) == 7


async def test_without_a_relay_the_error_says_why_and_the_direct_route_stays(
    echo: Service, baseline: dict[int, str]
) -> None:
    options = replace(QUICK, relays=RelayManagerOptions(max_relays=0))
    async with (
        Broker("tcp://127.0.0.1:0", options=options) as broker,
        Server(echo, broker=broker.endpoint),
        AsyncClient(broker.endpoint, options=through("relay")) as relayed,
        AsyncClient(broker.endpoint) as client,
    ):
        with pytest.raises(NoRelayError, match="as many as there may be"):
            await relayed.call("echo.add", 1)
        with pytest.raises(NoRelayError):  # and again, after the first refusal
            await relayed.call("echo.add", 1)
        assert await client.call("echo.add", 1) == 6


async def test_relayed_calls_go_on_after_a_restart_of_the_broker(until: Until, baseline: dict[int, str]) -> None:
    service = Service("lasting")

    @service.method(idempotent=True)
    async def twice(number: int) -> int:
        return 2 * number

    first = Broker("tcp://127.0.0.1:0", options=QUICK)
    first.start()
    async with (
        AsyncClient(first.endpoint, options=through("relay")) as client,
        Server(service, broker=first.endpoint),
    ):
        assert await client.call("lasting.twice", 1) == 2
        await first.close()
        waiting = [client.call("lasting.twice", number, deadline_s=30) for number in range(50)]
        await until(lambda: client.statistics()["services"] == {"lasting": "resolving"}, "the relay is gone")
        async with Broker(first.endpoint, options=replace(QUICK, grace_leases=2.0)):
            assert await asyncio.gather(*waiting) == [2 * number for number in range(50)]
            assert await client.call("lasting.twice", 21) == 42


async def test_auto_calls_directly_what_it_can_reach(broker: Broker, server: Server, client: AsyncClient) -> None:
    async with AsyncClient(broker.endpoint) as auto:
        before = len(relays(broker))
        assert await auto.call("echo.add", 1) == 6
        assert list(auto.statistics()["peers"]) == [server.endpoint]
        assert len(relays(broker)) == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
def test_auto_goes_through_the_relay_where_no_instance_can_be_reached(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text(GREETER)
    with namespaces.Namespaces() as spaces, Launcher(cwd=tmp_path) as launch:
        broker = launch.broker(host=namespaces.HERE, network=spaces.here)
        service = launch.service("greeting:greeter", broker, network=spaces.here)  # at a loopback of its own
        call = ("call", "greeter.hello", "Ann", "--broker", broker.address)
        reached = launch.command(*call, network=spaces.there)
        reached.wait_line("Hello, Ann!")
        assert reached.wait() == 0
        direct = launch.command(*call, "--route", "direct", "--deadline-s", "1", network=spaces.there)
        assert direct.wait() == 1
        assert "no instance of greeter could be reached" in direct.errors
        assert service.endpoint.startswith("tcp://127.0.0.1:")


def test_a_route_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadOptionError, match="'auto', 'direct' or 'relay'"):
        through("detour")
