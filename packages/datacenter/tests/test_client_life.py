"""Clients beside the calls: listeners, futures that their callers cancel, and the ways in which a client ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from datacenter import AsyncClient, Broker, Client, Server, Service, ServiceOptions, runtime
from datacenter.client import StateEvent
from datacenter.errors import AddressError, ClosedError

Until = Callable[[Callable[[], object], str], Awaitable[None]]

DEADLINE_S = 20.0


# --- listeners of a Client


async def test_a_listener_may_call_resolve_and_make_other_clients(broker: Broker, server: Server) -> None:
    def work() -> list[object]:
        found: list[object] = []
        heard = threading.Event()

        def listener(event: StateEvent) -> None:
            if not found:
                found.append(client.call("echo.add", 1))
                found.append(client.resolve("echo").state)
                with Client(broker.endpoint) as other:
                    found.append(other.call("echo.add", 2))
                heard.set()

        with Client(broker.endpoint) as client:
            client.on_state(listener)
            assert client.call("echo.add", 3) == 8
            assert heard.wait(DEADLINE_S), found
        return found

    assert await asyncio.to_thread(work) == [6, "live", 7]


async def test_a_listener_may_close_its_client(
    broker: Broker, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        closed = threading.Event()

        def listener(event: StateEvent) -> None:
            client.close()
            closed.set()

        client = Client(broker.endpoint)
        client.on_state(listener)
        call = client.submit("echo.wait_for_ever", deadline_s=100)
        assert closed.wait(DEADLINE_S)
        assert isinstance(call.exception(DEADLINE_S), ClosedError)
        with pytest.raises(ClosedError):
            client.call("echo.add", 1)

    await asyncio.to_thread(work)
    assert "did not close in order" not in caplog.text


async def test_a_slow_listener_delays_no_call(broker: Broker, server: Server) -> None:
    def work() -> None:
        entered, release = threading.Event(), threading.Event()

        def listener(event: StateEvent) -> None:
            entered.set()
            release.wait(DEADLINE_S)

        with Client(broker.endpoint) as client, Client(broker.endpoint) as other:
            client.on_state(listener)
            try:
                assert client.call("echo.add", 1, deadline_s=5) == 6
                assert entered.wait(DEADLINE_S)
                assert client.call("echo.add", 2, deadline_s=5) == 7
                assert other.call("echo.add", 3, deadline_s=5) == 8
            finally:
                release.set()

    await asyncio.to_thread(work)


# --- futures of `submit`


@pytest.mark.parametrize("target", ["echo.add", "no-dot"], ids=["call", "call that cannot start"])
async def test_a_cancelled_future_does_not_hold_up_the_calls_after_it(
    broker: Broker, server: Server, target: str
) -> None:
    def work() -> list[Any]:
        with Client(broker.endpoint) as client:
            client.call("echo.add", 1)
            gate = threading.Event()
            client._runtime.reactor.call(gate.wait, DEADLINE_S)  # so that the cancelled one is still in the queue
            cancelled = client.submit(target, 1)
            assert cancelled.cancel()
            after = client.submit("echo.add", 2)
            gate.set()
            return [after.result(DEADLINE_S), client.submit("echo.add", 3).result(DEADLINE_S)]

    assert await asyncio.to_thread(work) == [7, 8]


async def test_futures_are_cancelled_at_any_moment(broker: Broker, server: Server) -> None:
    def work() -> None:
        with Client(broker.endpoint) as client:
            for turn in range(200):
                for target in ("no-dot", "echo.wait_for_ever", "echo.add"):
                    client.submit(target, 1).cancel()
                assert client.submit("echo.add", turn, 0, 0).result(DEADLINE_S) == turn

    await asyncio.to_thread(work)


# --- ends


async def test_closing_is_not_held_up_by_a_full_executor(broker: Broker, echo: Service) -> None:
    loop = asyncio.get_running_loop()
    release = threading.Event()
    jobs = [loop.run_in_executor(None, release.wait, 2 * DEADLINE_S) for _ in range(64)]

    async def make_and_close() -> None:
        async with (
            Broker("tcp://127.0.0.1:0") as own,
            Server(echo, broker=own.endpoint, options=ServiceOptions(drain_s=0)),
            AsyncClient(own.endpoint) as client,
        ):
            assert await client.call("echo.add", 1) == 6

    try:
        await asyncio.wait_for(make_and_close(), DEADLINE_S)
        assert not any(job.done() for job in jobs)
    finally:
        release.set()
        await asyncio.gather(*jobs)


def test_an_async_client_whose_loop_ended_before_anybody_closed_it_warns_and_gives_back() -> None:
    async def forget(address: str) -> None:
        client = AsyncClient(address)
        client.on_state(print)
        await asyncio.sleep(0)

    def collect(address: str) -> None:
        asyncio.run(forget(address))
        end = time.monotonic() + DEADLINE_S
        while runtime._current is not None and time.monotonic() < end:
            gc.collect()

    with pytest.warns(ResourceWarning, match="an AsyncClient' was collected unclosed"):
        collect("tcp://127.0.0.1:9")
    assert runtime._current is None


async def test_an_endpoint_with_a_host_name_is_an_error_at_once_and_not_looked_up(
    broker: Broker, server: Server
) -> None:
    async with AsyncClient(broker.endpoint) as client:
        assert await client.call("echo.add", 1) == 6
        by_name = server.endpoint.replace("127.0.0.1", "localhost")
        peers = client._routes.peers
        peers.want(by_name)
        assert isinstance(peers.problems[by_name], AddressError)
        peers.unwant(by_name)
