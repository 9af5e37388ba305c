"""How calls end in the corners: impossible types, errors that cannot be sent, deadlines, limits, and waiting."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from datacenter import AsyncClient, Broker, BrokerOptions, ClientOptions, Server, Service, ServiceOptions, wire
from datacenter.client.route import RouteChoice
from datacenter.errors import (
    BadArgumentsError,
    DeadlineError,
    LostError,
    RemoteError,
    TooLargeError,
    WrongTypeError,
)
from datacenter.sockets import SocketContext, bundles
from datacenter.testing import Launcher

Until = Callable[[Callable[[], object], str], Awaitable[None]]
Reached = Callable[[AsyncClient], int]

NO_DRAIN = ServiceOptions(drain_s=0)
LENGTH = """
from datacenter import Service

sizes = Service("sizes")


@sizes.method
async def of(payload: bytes) -> int:
    return len(payload)
"""


def ready(client: AsyncClient) -> int:
    """How many instances the client is connected to."""
    return list(client.statistics()["peers"].values()).count("ready")


# --- what the caller asks for


@pytest.mark.parametrize("returns", [3, {"a": 1}, list[int] | set[int]], ids=str)
async def test_a_result_type_that_is_none_is_refused_at_once(server: Server, client: AsyncClient, returns: Any) -> None:
    with pytest.raises(BadArgumentsError, match="is not a type that results can be decoded into"):
        client.call("echo.add", 1, returns=returns)
    assert client.statistics()["in_flight"] == 0


@pytest.mark.parametrize("deadline_s", [0, -1])
async def test_a_call_without_any_time_is_not_sent(server: Server, client: AsyncClient, deadline_s: float) -> None:
    await client.call("echo.add", 1)
    with pytest.raises(DeadlineError) as caught:
        await client.call("echo.add", 2, deadline_s=deadline_s)
    assert not caught.value.sent
    await client.call("echo.add", 3)  # on the same connection, so a call sent before it would have arrived before it
    assert server.statistics()["calls"] == 2


async def test_keywords_go_past_a_default_that_is_not_of_its_type(broker: Broker, client: AsyncClient) -> None:
    service = Service("defaults")

    @service.method
    async def second(first: int = None, second: int = 0) -> tuple[Any, int]:  # type: ignore[assignment]  # noqa: RUF013
        return first, second

    async with Server(service, broker=broker.endpoint, options=NO_DRAIN):
        assert await client.call("defaults.second", second=3) == [None, 3]


# --- what a method raises


class TextlessError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


async def test_whatever_a_method_raises_is_answered(broker: Broker, client: AsyncClient) -> None:
    service = Service("bad")

    @service.method
    def exhausted() -> int:
        return next(iter(()))

    @service.method
    async def name_that_is_no_utf8() -> None:
        raise OSError(os.fsdecode(b"no file \xff"))

    @service.method
    async def textless() -> None:
        raise TextlessError

    @service.method
    async def huge() -> None:
        raise ValueError("x" * 20_000_000)

    async with Server(service, broker=broker.endpoint, options=NO_DRAIN) as server:
        kinds = {}
        for name in service.methods:
            with pytest.raises(RemoteError) as caught:
                await client.call(f"bad.{name}", deadline_s=5)
            assert len(caught.value.message) <= 4096
            kinds[name] = caught.value.kind
        assert kinds == {
            "exhausted": "StopIteration",
            "name_that_is_no_utf8": "OSError",
            "textless": "TextlessError",
            "huge": "ValueError",
        }
        assert server.statistics()["in_flight"] == 0


# --- limits


async def test_a_call_larger_than_its_service_takes_is_refused_and_hurts_no_other(
    broker: Broker, client: AsyncClient, until: Until
) -> None:
    service = Service("small")
    release = asyncio.Event()

    @service.method(idempotent=True)
    async def size(payload: bytes) -> int:
        return len(payload)

    @service.method
    async def wait() -> str:
        await release.wait()
        return "released"

    options = ServiceOptions(max_message_bytes=1000, drain_s=0)
    async with Server(service, broker=broker.endpoint, options=options) as server:
        with pytest.raises(TooLargeError, match="the limit is 1,000"):  # the limit is known only after it was made
            await client.call("small.size", bytes(2000), deadline_s=5)
        other = client.call("small.wait")
        await until(lambda: server.statistics()["in_flight"] == 1, "the other call runs")
        with pytest.raises(TooLargeError, match="the limit is 1,000"):
            client.call("small.size", bytes(2000))
        release.set()
        assert await other == "released"
        assert await client.call("small.size", bytes(500)) == 500
        assert (client.statistics()["lost"], client.statistics()["resent"]) == (0, 0)


@pytest.mark.parametrize("route", ["direct", "relay"])
async def test_a_limit_is_one_for_each_call_and_many_that_travel_together_pass_it(route: RouteChoice) -> None:
    """Hundred calls of 300 bytes are sent as bundles of 10 000 bytes, and so are their results."""
    service = Service("small")

    @service.method
    async def back(payload: bytes) -> bytes:
        return payload

    limited = ServiceOptions(max_message_bytes=400, drain_s=0)
    options = BrokerOptions(max_message_bytes=400)
    async with (
        Broker("tcp://127.0.0.1:0", options=options) as broker,
        Server(service, broker=broker.endpoint, options=limited) as server,
        AsyncClient(broker.endpoint, options=ClientOptions(route=route)) as client,
    ):
        await client.call("small.back", b"")
        calls = [client.call("small.back", bytes([n]) * 300, returns=bytes) for n in range(100)]
        assert await asyncio.gather(*calls) == [bytes([n]) * 300 for n in range(100)]
        assert client.statistics()["lost"] == server.statistics()["malformed"] == 0


async def test_a_call_beyond_the_limit_of_a_client_that_does_not_know_it_is_refused(
    broker: Broker, until: Until
) -> None:
    service = Service("small")
    ran: list[int] = []

    @service.method
    async def size(payload: bytes) -> None:
        ran.append(len(payload))

    async with Server(service, broker=broker.endpoint, options=ServiceOptions(max_message_bytes=1000)) as server:
        with SocketContext("by hand") as context, context.socket(zmq.DEALER, owner="by hand") as peer:
            peer.connect(server.endpoint)
            for number in (2000, 500):
                peer.raw.send(wire.encode(wire.OutgoingCall(number, "small", "size", 1000, (bytes(number),), {})))
            await until(lambda: ran, "the small one runs")
            replies: list[wire.FromService] = []
            while len(replies) < 2:
                await until(lambda: peer.raw.poll(0), "a reply comes")
                replies += map(wire.decode_reply, bundles.split(peer.raw.recv()))
    refused, answered = replies
    assert isinstance(refused, wire.Failure)
    assert (refused.id, refused.code) == (2000, TooLargeError.code)
    assert isinstance(answered, wire.Result)
    assert ran == [500]


async def test_cancelled_calls_do_not_fill_a_client(broker: Broker, server: Server, until: Until) -> None:
    async with AsyncClient(broker.endpoint, options=ClientOptions(max_in_flight=3)) as client:
        calls = [client.call("echo.wait_for_ever", deadline_s=100) for _ in range(3)]
        await until(lambda: server.statistics()["in_flight"] == 3, "all run, and will never be answered")
        for call in calls:
            call.cancel()
        assert await client.call("echo.add", 1) == 6


async def test_calls_that_waited_in_vain_are_not_kept(broker: Broker, client: AsyncClient, echo: Service) -> None:
    async with Server(echo, broker=broker.endpoint, options=NO_DRAIN):
        await client.call("echo.add", 1)
    waiting = client.call("echo.add", 1, deadline_s=60)
    await asyncio.gather(
        *[client.call("echo.back", bytes(1000), deadline_s=0.05) for _ in range(500)], return_exceptions=True
    )
    assert client.statistics()["waiting"] == client.statistics()["in_flight"] == 1
    async with Server(echo, broker=broker.endpoint, options=NO_DRAIN):
        assert await waiting == 6


async def test_a_method_whose_caller_has_given_up_in_the_queue_is_not_run(
    broker: Broker, client: AsyncClient, until: Until
) -> None:
    release = threading.Event()
    ran: list[str] = []
    service = Service("queue")

    @service.method
    def work(name: str) -> None:
        ran.append(name)
        release.wait(30)

    options = ServiceOptions(threads=1, drain_s=0)
    async with Server(service, broker=broker.endpoint, options=options) as server:
        first = client.call("queue.work", "first")
        await until(lambda: ran, "the only thread is taken")
        late = client.call("queue.work", "late", deadline_s=0.1)
        await until(lambda: server.statistics()["in_flight"] == 2, "the late one waits for the thread")
        its_end = time.monotonic() + 0.1  # at the service, which counts from the arrival
        with pytest.raises(DeadlineError):
            await late
        await until(lambda: time.monotonic() > its_end, "the deadline has passed at the service, too")
        release.set()
        await asyncio.gather(first, client.call("queue.work", "last"))
        assert ran == ["first", "last"]


# --- several instances, several types


async def test_a_resolve_of_another_type_does_not_hurt_calls_that_wait(
    broker: Broker, client: AsyncClient, echo: Service
) -> None:
    async with Server(echo, broker=broker.endpoint, options=NO_DRAIN):
        await client.call("echo.add", 1)
    waiting = client.call("echo.add", 1, deadline_s=60)
    with pytest.raises(WrongTypeError):
        await client.resolve("echo", type_="topic")
    assert not waiting.done()
    async with Server(echo, broker=broker.endpoint, options=NO_DRAIN):
        assert await waiting == 6


async def test_a_method_is_repeated_only_if_every_instance_declares_it_idempotent(
    broker: Broker, client: AsyncClient, until: Until, reached: Reached
) -> None:
    runs: list[str] = []

    def version(name: str, *, idempotent: bool) -> Server:
        service = Service("bank")

        @service.method(idempotent=idempotent)
        async def pay() -> None:
            runs.append(name)
            await asyncio.Event().wait()

        return Server(service, broker=broker.endpoint, options=NO_DRAIN)

    async with version("old", idempotent=False) as old, version("new", idempotent=True):
        with pytest.raises(DeadlineError):
            await client.call("bank.pay", deadline_s=0.05)
        await until(lambda: reached(client) == 2, "both are connected")
        runs.clear()
        calls = [client.call("bank.pay", deadline_s=60) for _ in range(2)]
        await until(lambda: "old" in runs, "the old version pays")
        sent_to_old = runs.count("old")
        old._stream.close()  # the connection ends, as if the process had died
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert {type(call.exception()) for call in done} == {LostError}
        assert len(done) == sent_to_old
        assert client.statistics()["resent"] == 0


async def test_a_port_that_another_service_has_taken_over_loses_no_call(
    broker: Broker, client: AsyncClient, until: Until, reached: Reached
) -> None:
    def answering(name: str) -> Service:
        service = Service(name)

        @service.method
        async def who() -> str:
            return name

        return service

    crashed = Server(answering("one"), broker=broker.endpoint, options=NO_DRAIN)
    crashed.start()
    await crashed.registered()
    assert await client.call("one.who") == "one"
    crashed._shut()  # its port is free, and its lease goes on: the session is that of the process
    try:
        await until(lambda: reached(client) == 0, "the client notices")
        successor = Server(answering("two"), broker=broker.endpoint, listen=crashed.endpoint, options=NO_DRAIN)
        async with successor, Server(answering("one"), broker=broker.endpoint, options=NO_DRAIN):
            await until(lambda: reached(client) == 2, "both are connected")
            answers = await asyncio.gather(*[client.call("one.who") for _ in range(20)])
            assert answers == ["one"] * 20
            assert successor.statistics()["calls"] > 0  # it was asked, and said that it is not "one"
    finally:
        crashed._give_back()


def test_an_instance_without_room_does_not_hold_up_calls_that_another_can_take(tmp_path: Path, until: Until) -> None:
    (tmp_path / "sizes.py").write_text(LENGTH)
    with Launcher(cwd=tmp_path) as launch:
        broker = launch.broker(options=("--lease-s", "60"))  # the stopped one stays registered
        stopped, _ = (launch.service("sizes:sizes", broker) for _ in range(2))

        async def main() -> None:
            async with AsyncClient(broker.address) as client:
                await client.call("sizes.of", b"")
                await until(lambda: ready(client) == 2, "both are connected")
                (full,) = (peer for peer in client._routes.peers.all() if peer.endpoint == stopped.endpoint)
                stopped.signal(signal.SIGSTOP)
                calls = [client.call("sizes.of", bytes(20_000), deadline_s=60) for _ in range(4000)]
                # What the stopped one has no room for, the other one does.
                await until(lambda: sum(call.done() for call in calls) == 4000 - len(full.pending), "all others end")
                assert full.refused
                assert 0 < len(full.pending) < 2000
                stopped.signal(signal.SIGCONT)
                assert await asyncio.gather(*calls) == [20_000] * 4000

        asyncio.run(main())


# --- bulk


BLOCKED = """
import asyncio, sys, time
from datacenter import AsyncClient, ClientOptions

async def main():
    async with AsyncClient(sys.argv[1], options=ClientOptions(route=sys.argv[2])) as client:
        await client.call("sizes.of", b"")
        calls = [client.call("sizes.of", b"x", deadline_s=60) for _ in range(3000)]
        await asyncio.sleep(0)
        time.sleep(4.5)  # longer than heartbeats are waited for, while the replies come
        print(sorted({str(result) for result in await asyncio.gather(*calls, return_exceptions=True)}))

asyncio.run(main())
"""


@pytest.mark.parametrize("route", ["direct", "relay"])
def test_a_loop_that_is_blocked_while_replies_come_loses_none(tmp_path: Path, route: str) -> None:
    """With a bounded receive queue libzmq stops reading, misses its heartbeats, reconnects, and aborts (#3937)."""
    (tmp_path / "sizes.py").write_text(LENGTH)
    (tmp_path / "blocked.py").write_text(BLOCKED)
    with Launcher(cwd=tmp_path) as launch:
        broker = launch.broker()
        launch.service("sizes:sizes", broker)
        client = launch.python("blocked.py", broker.address, route)
        client.wait_line(r"^\['1'\]$", 90)
        assert client.wait() == 0


async def test_many_large_results_reach_a_client_that_reads(broker: Broker, client: AsyncClient, echo: Service) -> None:
    async with Server(echo, broker=broker.endpoint, options=NO_DRAIN) as server:
        results = await asyncio.gather(*[client.call("echo.large", 20_000, deadline_s=60) for _ in range(4000)])
        assert {len(result) for result in results} == {20_000}
        assert server.statistics()["dropped_replies"] == 0


async def test_nothing_more_is_executed_for_a_client_that_reads_no_results(
    broker: Broker, client: AsyncClient, until: Until
) -> None:
    runs = 0
    service = Service("bulk")

    @service.method
    async def make(size: int) -> bytes:
        nonlocal runs
        runs += 1
        return bytes(size)

    options = ServiceOptions(drain_s=0, busy_outbox_bytes=5_000_000)
    async with Server(service, broker=broker.endpoint, options=options) as server:
        with SocketContext("slow") as context, context.socket(zmq.DEALER, owner="slow", receive_high_water=1) as slow:
            slow.connect(server.endpoint)
            for number in range(3000):
                slow.raw.send(wire.encode(wire.OutgoingCall(number, "bulk", "make", 60_000, (20_000,), {})))
            await until(lambda: server.statistics()["calls"] == 3000, "all calls have come")
            await until(lambda: not server.statistics()["in_flight"], "what is executed is done")
            assert runs == 3000 - server.statistics()["refused"]
            assert server.statistics()["refused"] > 500
            assert server.statistics()["dropped_replies"] == 0
            assert await client.call("bulk.make", 3) == bytes(3)  # others are served


async def test_calls_that_were_cancelled_in_vain_waiting_are_not_kept(broker: Broker, echo: Service) -> None:
    async with Server(echo, broker=broker.endpoint, options=NO_DRAIN):
        pass  # known, and away
    async with AsyncClient(broker.endpoint, options=ClientOptions(max_in_flight=100)) as client:
        waits = client.call("echo.add", 1, deadline_s=60)
        for _ in range(1000):
            client.call("echo.add", 1, deadline_s=60).cancel()
            await asyncio.sleep(0)
        assert client.statistics()["waiting"] <= 100
        waits.cancel()
