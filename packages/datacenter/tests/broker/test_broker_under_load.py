"""A broker and its sessions when something is in the way: peers that do not read, types that changed, old leases."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from datacenter import AsyncClient, Broker, BrokerOptions, Server, Service, ServiceOptions, clock, runtime, wire
from datacenter.broker.sessions import Sessions
from datacenter.client import StateEvent
from datacenter.errors import BadOptionError, DatacenterError, WrongTypeError
from datacenter.registry.state import Registry
from datacenter.sockets import SocketContext, SocketOptions
from datacenter.wire import Instance, Resolution
from forwarder import Forwarder

Until = Callable[[Callable[[], object], str], Awaitable[None]]

FAST = BrokerOptions(heartbeat_s=0.2, lease_s=0.6, grace_leases=0.0)
PATIENT = BrokerOptions(heartbeat_s=0.2, missed_heartbeats=100, lease_s=20.0, grace_leases=0.0, control_high_water=1000)
DEADLINE_S = 20.0
COUNT = 4500  # registrations


async def test_a_name_that_is_of_another_type_since_the_broker_restarted_costs_no_session(
    echo: Service, until: Until
) -> None:
    first = Broker("tcp://127.0.0.1:0", options=FAST)
    first.start()
    async with AsyncClient(first.endpoint) as client:
        states: list[StateEvent] = []
        client.on_state(states.append)
        async with Server(echo, broker=first.endpoint, options=ServiceOptions(drain_s=0)):
            await client.call("echo.add", 1)
        waiting = client.call("echo.add", 1, deadline_s=60)
        await first.close()
        await until(lambda: client.statistics()["session"]["state"] == "lost", "the session notices")
        async with Broker(first.endpoint, options=FAST) as second:
            registry = second.sessions.registry
            registry.register(clock.now(), "somebody", "echo", "topic", Instance("t", "tcp://127.0.0.1:9"))
            registry.renew(clock.now() + 1000, ["t"])
            with pytest.raises(WrongTypeError, match="registered as topic"):
                await waiting
            with pytest.raises(WrongTypeError, match="registered as topic"):
                await client.call("echo.add", 1)
            refused, received = second.statistics()["refused"], second.statistics()["received"]
            await until(lambda: second.statistics()["received"] >= received + 4, "the session goes on")
            assert second.statistics()["refused"] == refused
            assert second.statistics()["sessions"] == 1
            assert [event.state for event in states if not event.service] == ["connected", "lost", "restored"]


async def test_a_session_that_missed_a_change_introduces_itself_again_and_is_up_to_date(until: Until) -> None:
    """Its process always reads (libzmq's I/O thread does, without a bound): only the way to it can be full."""
    with contextlib.closing(Forwarder(0)) as way:
        async with Broker("tcp://127.0.0.1:0", options=PATIENT) as broker:
            way.target = int(broker.endpoint.rpartition(":")[2])
            async with AsyncClient(f"tcp://127.0.0.1:{way.port}") as client:
                told: list[Resolution | DatacenterError] = []
                client._session.watch("news", "rpc", told.append)
                await until(lambda: broker.statistics()["watchers"] == 1, "it watches")
                registry = broker.sessions.registry
                way.hold("answers")
                # More than the high-water mark and the kernel's buffers (at most 4 MB and 32 MB) hold. Without an
                # await: nothing is received, and no silence is noticed, meanwhile.
                for turn in range(10_000):
                    instance = Instance("i", "tcp://127.0.0.1:9", metadata={"turn": str(turn), "news": "x" * 20_000})
                    _, changes = registry.register(clock.now(), "somebody", "news", "rpc", instance)
                    broker._send(broker.sessions.tell(changes))
                    if broker.statistics()["undeliverable"]:
                        break
                # Forgotten with what it watches, and nothing more is tried.
                assert broker.statistics()["undeliverable"] == 1
                assert (broker.statistics()["sessions"], broker.statistics()["watchers"]) == (0, 0)
                registry.renew(clock.now() + 1000, ["i"])
                way.go_on()
                latest = registry.resolve("news", "rpc").version
                await until(lambda: told and getattr(told[-1], "version", 0) == latest, "it knows the latest")
                assert (broker.statistics()["sessions"], broker.statistics()["watchers"]) == (1, 1)


async def test_thousands_of_registrations_wait_for_a_broker_that_is_busy_and_are_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A socket whose messages are not taken answers no ping either: after 3 s its connection would be cut, and all be
    # said again. Where much else runs this thread takes longer than that before it lets the broker go on.
    patient = SocketOptions(heartbeat_timeout_ms=60_000, heartbeat_ttl_ms=60_000)
    monkeypatch.setattr(runtime, "SocketContext", functools.partial(SocketContext, options=patient))
    options = BrokerOptions(heartbeat_s=10.0, lease_s=30.0, grace_leases=0.0)
    async with Broker("tcp://127.0.0.1:0", options=options) as broker, AsyncClient(broker.endpoint) as client:
        session = client._session
        await asyncio.to_thread(session.wait_connected, DEADLINE_S)
        session.options = dataclasses.replace(session.options, request_s=60.0)  # 90 MB take long where much else runs
        # More than both high-water marks (1000 each) and the kernel's buffers (at most 4 MB and 32 MB) hold. Until the
        # next await the broker reads nothing.
        big = {"description": "x" * 20_000}
        told = [
            session.register(f"name-{number}", "rpc", Instance(f"i{number}", "tcp://127.0.0.1:9", metadata=big))
            for number in range(COUNT)
        ]
        end = time.monotonic() + DEADLINE_S
        while not (session._connection and session._connection.unsent):
            assert time.monotonic() < end, "not all of them found room"
        client._runtime.reactor.call(lambda: session._register_again(only_unconfirmed=True))  # as a heartbeat does
        epochs = await asyncio.gather(*map(asyncio.wrap_future, told))
        assert len(set(epochs)) == COUNT
        counts = broker.statistics()
        assert (counts["instances"], counts["undeliverable"], counts["sessions"]) == (COUNT, 0, 1)
        assert counts["received"] < COUNT + 10


async def test_a_session_that_is_told_of_thousands_at_once_is_not_forgotten(until: Until) -> None:
    gate = threading.Event()
    options = BrokerOptions(heartbeat_s=10.0, lease_s=30.0, grace_leases=0.0)
    async with Broker("tcp://127.0.0.1:0", options=options) as broker, AsyncClient(broker.endpoint) as client:
        told: list[Resolution | DatacenterError] = []
        client._session.watch("news", "rpc", told.append)
        await until(lambda: broker.statistics()["watchers"] == 1, "it watches")
        client._runtime.reactor.call(gate.wait, DEADLINE_S)  # busy with something else
        try:
            for turn in range(8000):
                instance = Instance("i", "tcp://127.0.0.1:9", metadata={"turn": str(turn), "news": "x" * 4000})
                _, changes = broker.sessions.registry.register(clock.now(), "x", "news", "rpc", instance)
                broker._send(broker.sessions.tell(changes))
        finally:
            gate.set()
        latest = broker.sessions.registry.resolve("news", "rpc").version
        await until(lambda: bool(told) and getattr(told[-1], "version", 0) == latest, "it is told of the last")
        assert [getattr(news, "state", "") for news in told].count("live") == 8000
        assert broker.statistics()["undeliverable"] == 0


async def test_a_name_that_is_watched_before_there_is_a_session_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received = []
    original = Sessions.received

    def recorded(self: Sessions, now: float, who: bytes, message: wire.ToBroker) -> object:
        received.append(message)
        return original(self, now, who, message)

    monkeypatch.setattr(Sessions, "received", recorded)
    async with Broker("tcp://127.0.0.1:0", options=FAST) as broker:
        with contextlib.closing(Forwarder(int(broker.endpoint.rpartition(":")[2]))) as way:
            way.hold()
            async with AsyncClient(f"tcp://127.0.0.1:{way.port}") as client:
                told: list[Resolution | DatacenterError] = []
                client._session.watch("news", "rpc", told.append)
                way.go_on()
                for _ in range(2):  # the second is asked after the name
                    await asyncio.wrap_future(client._session.list_services())
                assert len([message for message in received if isinstance(message, wire.Resolve)]) == 1
                assert len(told) == 1


@pytest.mark.parametrize(
    "options",
    [
        BrokerOptions(lease_s=1.0),
        BrokerOptions(heartbeat_s=2.0),
        BrokerOptions(missed_heartbeats=10),
    ],
    ids=["short lease", "slow heartbeat", "many missed"],
)
def test_a_lease_that_ends_before_its_session_is_given_up_is_refused(options: BrokerOptions) -> None:
    with pytest.raises(BadOptionError, match="shorten heartbeat_s"):
        Broker("tcp://127.0.0.1:0", options=options)


def test_a_session_that_says_hello_again_and_again_does_not_hide_one_that_is_silent() -> None:
    registry = Registry(lease_s=3.0, grace_s=0.0, started_at=0.0, first_epoch=0)
    welcome = wire.Welcome(wire.PROTOCOL, "0.1", "b", 1.0, 3, 3.0, 1024, 10)
    sessions = Sessions(registry, welcome, max_sessions=2)
    hello = wire.Hello(wire.PROTOCOL, "0.1", 1, "host", "process")
    sessions.received(0.0, b"talking", hello)
    sessions.received(0.0, b"talking", wire.Register(1, "a", "rpc", Instance("i", "tcp://127.0.0.1:1")))
    sessions.received(0.0, b"silent", hello)
    for second in range(1, 5):
        sessions.received(float(second), b"talking", hello)
        sessions.tick(second + 0.1)
    assert set(sessions.processes) == {b"talking"}
    assert sessions.processes[b"talking"].instances == {"i"}  # and keeps what is its own
