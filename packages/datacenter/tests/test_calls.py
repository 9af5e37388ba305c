"""Calls from end to end, with a real broker, service and client: every way in which one can end."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import zmq

from datacenter import AsyncClient, Broker, BrokerOptions, Client, ClientOptions, Server, Service, ServiceOptions, wire
from datacenter.client import StateEvent
from datacenter.errors import (
    BadArgumentsError,
    BadResultError,
    BrokerUnreachableError,
    BusyError,
    ClosedError,
    DeadlineError,
    LostError,
    NoSuchMethodError,
    NoSuchServiceError,
    NotServableError,
    RemoteError,
    TooLargeError,
    WrongLoopError,
    WrongTypeError,
)
from datacenter.sockets import SocketContext

Until = Callable[[Callable[[], object], str], Awaitable[None]]
Reached = Callable[[AsyncClient], int]
AtRest = Callable[[], Awaitable[None]]


async def test_a_call_gives_its_result_typed_or_plain(server: Server, client: AsyncClient, at_rest: AtRest) -> None:
    assert await client.call("echo.back", b"x" * 64, returns=bytes) == b"x" * 64
    assert await client.call("echo.hello", "Ann") == "Hello, Ann!"
    assert await client.call("echo.hello", "Ann", greeting="Hi", returns=str) == "Hi, Ann!"
    assert await client.call("echo.add", 1, c=10) == 13
    await at_rest()


async def test_many_calls_share_one_connection(server: Server, client: AsyncClient, at_rest: AtRest) -> None:
    results = await asyncio.gather(*[client.call("echo.add", number, 0, 0) for number in range(2000)])
    assert results == list(range(2000))
    assert len(client.statistics()["peers"]) == 1
    await at_rest()


@pytest.mark.parametrize(
    ("target", "args", "error", "text"),
    [
        ("echo.nothing", (), NoSuchMethodError, "It has: add, back"),
        ("nobody.home", (), NoSuchServiceError, "datacenter serve MODULE:nobody"),
        ("echo.hello", (5,), BadArgumentsError, "at `name`"),
        ("echo.hello", (), BadArgumentsError, "takes 1 to 2 arguments, 0 were given"),
        ("echo.fail", ("no such key",), RemoteError, "no such key"),
        ("echo.unsendable", (), BadResultError, "cannot be encoded"),
        ("echo.large", (20_000_000,), TooLargeError, "the limit is 16,777,216"),
    ],
)
async def test_a_call_that_cannot_succeed_ends_with_a_typed_error(
    server: Server, client: AsyncClient, target: str, args: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await client.call(target, *args, deadline_s=30)
    assert await client.call("echo.add", 1) == 6  # and the service goes on


async def test_the_class_of_a_remote_error_is_told(server: Server, client: AsyncClient) -> None:
    with pytest.raises(RemoteError) as caught:
        await client.call("echo.fail", "x")
    assert caught.value.kind == "LookupError"


async def test_what_is_wrong_before_sending_is_raised_at_once(server: Server, client: AsyncClient) -> None:
    await client.call("echo.add", 1)
    with pytest.raises(NotServableError):
        client.call("echo")
    with pytest.raises(BadArgumentsError, match="cannot be encoded"):
        client.call("echo.back", object())
    with pytest.raises(TooLargeError, match="the limit is 16,777,216"):
        client.call("echo.back", bytes(17_000_000))
    assert client.statistics()["in_flight"] == 0


async def test_a_result_of_another_type_than_asked_for(server: Server, client: AsyncClient) -> None:
    with pytest.raises(BadResultError, match="Expected `int`, got `str`"):
        await client.call("echo.hello", "Ann", returns=int)


async def test_a_call_ends_by_its_deadline_and_says_whether_it_was_sent(server: Server, client: AsyncClient) -> None:
    with pytest.raises(DeadlineError, match=r"was sent to tcp://127\.0\.0\.1:\d+ but not answered") as caught:
        await client.call("echo.wait_for_ever", deadline_s=0.05)
    assert caught.value.sent
    assert client.statistics()["in_flight"] == 0
    assert server.statistics()["in_flight"] == 1


async def test_a_short_deadline_is_not_held_up_by_a_long_one(server: Server, client: AsyncClient) -> None:
    long = client.call("echo.wait_for_ever", deadline_s=100)
    with pytest.raises(DeadlineError):
        await client.call("echo.wait_for_ever", deadline_s=0.05)
    assert not long.done()


async def test_a_cancelled_call_is_forgotten_when_its_answer_comes(
    server: Server, client: AsyncClient, until: Until
) -> None:
    call = client.call("echo.add", 1)
    call.cancel()
    await until(lambda: client.statistics()["in_flight"] == 0, "the answer arrives and is dropped")
    assert await client.call("echo.add", 1) == 6


async def test_more_calls_than_the_client_takes_are_refused_unsent(broker: Broker, server: Server) -> None:
    async with AsyncClient(broker.endpoint, options=ClientOptions(max_in_flight=3)) as client:
        calls = [client.call("echo.add", 1) for _ in range(3)]
        with pytest.raises(BusyError, match="max_in_flight"):
            client.call("echo.add", 1)
        assert await asyncio.gather(*calls) == [6, 6, 6]
        assert await client.call("echo.add", 1) == 6


async def test_more_calls_than_the_service_takes_are_refused_unexecuted(
    broker: Broker, client: AsyncClient, echo: Service
) -> None:
    async with Server(echo, broker=broker.endpoint, options=ServiceOptions(max_in_flight=1, drain_s=0)):
        first = client.call("echo.wait_for_ever", deadline_s=100)
        with pytest.raises(BusyError):
            await client.call("echo.add", 1)
        assert not first.done()


async def test_a_known_service_that_is_away_is_waited_for(broker: Broker, client: AsyncClient, echo: Service) -> None:
    async with Server(echo, broker=broker.endpoint):
        await client.call("echo.add", 1)
    with pytest.raises(DeadlineError, match="was not sent"):
        await client.call("echo.add", 1, deadline_s=0.05)
    waiting = client.call("echo.add", 1)
    async with Server(echo, broker=broker.endpoint):
        assert await waiting == 6


async def test_an_unknown_name_is_waited_for_while_the_broker_settles(echo: Service, until: Until) -> None:
    options = BrokerOptions(heartbeat_s=0.2, lease_s=0.6, grace_leases=1000)
    async with Broker("tcp://127.0.0.1:0", options=options) as broker, AsyncClient(broker.endpoint) as client:
        waiting = client.call("echo.add", 1)
        await until(lambda: client.statistics()["session"]["state"] == "connected", "the broker is heard")
        with pytest.raises(DeadlineError):
            await client.call("echo.add", 1, deadline_s=0.05)
        async with Server(echo, broker=broker.endpoint):
            assert await waiting == 6


async def test_without_a_broker_the_error_says_so(baseline: dict[int, str]) -> None:
    async with AsyncClient("tcp://127.0.0.1:9") as client:
        with pytest.raises(BrokerUnreachableError, match="datacenter up"):
            await client.call("echo.add", 1, deadline_s=0.1)


async def test_a_connection_that_ends_loses_what_was_sent_unless_it_is_idempotent(
    broker: Broker, client: AsyncClient, until: Until
) -> None:
    runs: list[str] = []
    service = Service("work")

    @service.method
    async def once() -> None:
        runs.append("once")
        await asyncio.Event().wait()

    @service.method(idempotent=True)
    async def again() -> str:
        runs.append("again")
        if runs.count("again") == 1:
            await asyncio.Event().wait()
        return "done"

    first = Server(service, broker=broker.endpoint, options=ServiceOptions(drain_s=0))
    first.start()
    await first.registered()
    once_call, again_call = client.call("work.once"), client.call("work.again")
    await until(lambda: len(runs) == 2, "both run")
    first._stream.close()  # the connection ends, as if the process had died
    with pytest.raises(LostError, match="idempotent"):
        await once_call
    async with Server(service, broker=broker.endpoint):
        assert await again_call == "done"
    assert runs == ["once", "again", "again"]
    await first.close()


async def test_several_instances_share_the_calls(
    broker: Broker, client: AsyncClient, until: Until, reached: Reached
) -> None:
    arrived = asyncio.Semaphore(0)
    go_on = asyncio.Event()

    def instance(number: int) -> Service:
        service = Service("shared")

        @service.method
        async def which() -> int:
            arrived.release()
            await go_on.wait()
            return number

        return service

    async with Server(instance(1), broker=broker.endpoint), Server(instance(2), broker=broker.endpoint):
        calls = [client.call("shared.which")]
        await until(lambda: reached(client) == 2, "both connected")
        calls += [client.call("shared.which") for _ in range(99)]
        for _ in range(100):  # none is answered before all have been handed out
            await arrived.acquire()
        go_on.set()
        answers = await asyncio.gather(*calls)
        assert answers.count(1) == 50
        one_by_one = [await client.call("shared.which") for _ in range(6)]
        assert one_by_one in ([1, 2] * 3, [2, 1] * 3)
    # both leave: another one serves everything
    async with Server(instance(3), broker=broker.endpoint):
        assert await client.call("shared.which") == 3


async def test_a_server_serves_several_services_over_one_connection(
    broker: Broker, client: AsyncClient, echo: Service
) -> None:
    other = Service("other")

    @other.method
    async def ping() -> str:
        return "pong"

    async with Server([echo, other], broker=broker.endpoint):
        assert await client.call("other.ping") == "pong"
        assert await client.call("echo.add", 1) == 6
        relays = {"echo", "other"}  # each service has its own
        assert len(client.statistics()["peers"]) == (1 if client.options.route == "direct" else len(relays))


async def test_states_are_reported(broker: Broker, client: AsyncClient, echo: Service, until: Until) -> None:
    seen: list[StateEvent] = []
    remove = client.on_state(seen.append)
    async with Server(echo, broker=broker.endpoint):
        await client.call("echo.add", 1)
    await until(lambda: seen[-1].state == "resolving" and len(seen) > 2, "the loss is noticed")
    async with Server(echo, broker=broker.endpoint):
        await client.call("echo.add", 1)
        states = [event.state for event in seen if event.service == "echo"]
        assert states == ["resolving", "connected", "lost", "resolving", "restored"]
        remove()
        count = len(seen)
    await until(lambda: client.statistics()["services"] == {"echo": "resolving"}, "the second loss")
    assert len(seen) == count


async def test_calls_go_on_while_the_broker_is_away_and_all_is_as_before_when_it_is_back(
    echo: Service, until: Until, at_rest: AtRest
) -> None:
    options = BrokerOptions(heartbeat_s=0.2, lease_s=0.6, grace_leases=2)
    first = Broker("tcp://127.0.0.1:0", options=options)
    first.start()
    async with Server(echo, broker=first.endpoint) as server, AsyncClient(first.endpoint) as client:
        seen: list[StateEvent] = []
        client.on_state(seen.append)
        assert await client.call("echo.add", 1) == 6
        await first.close()
        assert await client.call("echo.add", 2) == 7
        async with Broker(first.endpoint, options=options) as second:
            await until(lambda: second.statistics()["instances"] == 1, "the instance registers again")
            await until(lambda: second.statistics()["watchers"] == 1, "the client watches again")
            assert await client.call("echo.add", 3) == 8
            assert server.statistics()["session"]["state"] == "connected"
            await until(lambda: [event.state for event in seen if not event.service] == ["lost", "restored"], "states")
            await at_rest()


async def test_a_silent_instance_leaves_the_registry_when_its_lease_ends(
    broker: Broker, server: Server, client: AsyncClient, until: Until
) -> None:
    await client.call("echo.add", 1)
    session = server._session
    for timer in (session._timer, session._reopen_timer):
        if timer is not None:
            session._reactor.call(timer.cancel)  # no more heartbeats, as if the process had been stopped
    await until(lambda: broker.statistics()["instances"] == 0, "the lease ends")
    session._reactor.call(session._tick)
    await until(lambda: broker.statistics()["instances"] == 1, "it is told to introduce itself and registers again")
    assert await client.call("echo.add", 1) == 6


async def test_strangers_and_malformed_messages_do_no_harm(broker: Broker, server: Server, client: AsyncClient) -> None:
    await client.call("echo.add", 1)
    with SocketContext("stranger") as context:
        for endpoint in (broker.endpoint, server.endpoint):
            with context.socket(zmq.DEALER, owner="stranger", linger_ms=1000) as socket:
                socket.connect(endpoint)
                for frames in ([b""], [b"\xff" * 100], [b"a", b"b"], [b""] * 50, [b"\x91" * 10_000]):
                    socket.raw.send_multipart(frames)
                call = wire.OutgoingCall(1, "echo", "add", 1000, (1,), {})
                socket.raw.send(wire.encode(call))
                if endpoint == server.endpoint:
                    reply = wire.decode_reply(await asyncio.to_thread(socket.raw.recv))
                    assert isinstance(reply, wire.Result)
    assert server.statistics()["malformed"] >= 5
    assert await client.call("echo.add", 1) == 6


async def test_a_client_that_does_not_read_costs_only_itself(
    broker: Broker, client: AsyncClient, echo: Service, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    options = ServiceOptions(max_outbox=10, drain_s=0)
    async with Server(echo, broker=broker.endpoint, options=options) as server:
        with SocketContext("slow") as context, context.socket(zmq.DEALER, owner="slow", receive_high_water=1) as slow:
            slow.connect(server.endpoint)
            with caplog.at_level(logging.ERROR):
                for number in range(6000):
                    call = wire.OutgoingCall(number, "echo", "back", 1000, (bytes(4000),), {})
                    slow.raw.send(wire.encode(call))
                    if number % 100 == 0:
                        assert await client.call("echo.add", 1) == 6
                await until(lambda: server.statistics()["dropped_replies"] > 0, "replies are dropped and counted")
            assert server.statistics()["outbox"] <= 10
            assert await client.call("echo.add", 1) == 6


async def test_an_async_client_outside_its_loop_raises_a_typed_error(server: Server, client: AsyncClient) -> None:
    caught: list[Exception] = []

    def elsewhere() -> None:
        async def use() -> None:
            client.call("echo.add", 1)

        for attempt in (lambda: client.call("echo.add", 1), lambda: asyncio.run(use())):
            try:
                attempt()
            except Exception as error:
                caught.append(error)

    await asyncio.to_thread(elsewhere)
    assert [type(error) for error in caught] == [WrongLoopError, WrongLoopError]


async def test_closing_ends_what_is_in_flight_with_a_typed_error(broker: Broker, server: Server) -> None:
    async with AsyncClient(broker.endpoint) as client:
        call = client.call("echo.wait_for_ever", deadline_s=100)
        await client.call("echo.add", 1)
    with pytest.raises(ClosedError):
        await call
    with pytest.raises(ClosedError):
        client.call("echo.add", 1)
    await client.close()


async def test_one_client_is_shared_by_sixteen_threads(broker: Broker, server: Server, at_rest: AtRest) -> None:
    wrong: list[object] = []

    def work(client: Client, number: int) -> None:
        answers = [client.call("echo.add", number, turn, 0) for turn in range(50)]
        if answers != [number + turn for turn in range(50)]:
            wrong.append(answers)
        try:
            client.call("echo.fail", str(number))
        except RemoteError as error:
            if error.message != str(number):
                wrong.append(error)

    def all_threads() -> Client:
        with Client(broker.endpoint) as client:
            threads = [threading.Thread(target=work, args=(client, number)) for number in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(client.statistics()["peers"]) == 1
        return client

    client = await asyncio.to_thread(all_threads)
    assert wrong == []
    with pytest.raises(ClosedError):
        client.call("echo.add", 1)
    await at_rest()


async def test_a_thread_pool_runs_methods_that_block(broker: Broker, client: AsyncClient) -> None:
    release = threading.Event()
    service = Service("blocking")

    @service.method
    def block() -> str:
        release.wait(30)
        return "released"

    @service.method
    async def free() -> str:
        return "free"

    async with Server(service, broker=broker.endpoint):
        blocked = client.call("blocking.block")
        assert await client.call("blocking.free") == "free"
        release.set()
        assert await blocked == "released"


async def test_two_brokers_cannot_share_a_port(broker: Broker) -> None:
    from datacenter.errors import AddressInUseError

    second = Broker(broker.endpoint)
    with pytest.raises(AddressInUseError):
        second.start()
    await second.close()


async def test_listening_beyond_loopback_needs_a_flag(broker: Broker, echo: Service) -> None:
    from datacenter.errors import InsecureAddressError

    with pytest.raises(InsecureAddressError):
        Server(echo, broker=broker.endpoint, listen="tcp://0.0.0.0:0").start()


async def test_resolve_tells_who_serves_a_name(broker: Broker, server: Server, client: AsyncClient) -> None:
    found = await client.resolve("echo")
    assert (found.name, found.type, found.state) == ("echo", "rpc", "live")
    assert found.instances[0].endpoint == server.endpoint
    with pytest.raises(NoSuchServiceError):
        await client.resolve("nobody")
    with pytest.raises(WrongTypeError, match="registered as rpc"):
        await client.resolve("echo", type_="topic")
    with pytest.raises(NotServableError):
        await client.resolve("no spaces")


async def test_what_is_forgotten_is_closed_from_another_thread(broker: Broker, server: Server) -> None:
    """As the exit hook does it: the loop runs, and somebody else closes."""
    client = AsyncClient(broker.endpoint)
    await client.call("echo.add", 1)
    await asyncio.to_thread(client.close_now)
    with pytest.raises(ClosedError):
        client.call("echo.add", 1)


def test_a_client_whose_loop_has_ended_can_still_be_closed() -> None:
    async def forget() -> AsyncClient:
        async with Broker("tcp://127.0.0.1:0") as broker:
            return AsyncClient(broker.endpoint)

    asyncio.run(forget()).close_now()


async def test_one_name_watched_as_two_types_answers_each_for_itself(broker: Broker, echo: Service) -> None:
    one, other = AsyncClient(broker.endpoint), AsyncClient(broker.endpoint)
    async with one, other, Server(echo, broker=broker.endpoint):
        assert await one.call("echo.add", 1) == 6
        with pytest.raises(WrongTypeError):
            await other.resolve("echo", type_="topic")
        assert await one.call("echo.add", 2) == 7
        assert (await other.resolve("echo")).state == "live"


async def test_a_call_that_kills_its_service_again_and_again_is_not_sent_for_ever(
    broker: Broker, client: AsyncClient, until: Until
) -> None:
    runs = 0
    service = Service("fragile")
    servers: list[Server] = []

    @service.method(idempotent=True)
    async def crash() -> None:
        nonlocal runs
        runs += 1
        servers[-1]._stream.close()  # the connection ends, as if the process had died
        await asyncio.Event().wait()

    async def serve_until(ends: Callable[[], object]) -> None:
        servers.append(Server(service, broker=broker.endpoint, options=ServiceOptions(drain_s=0)))
        servers[-1].start()
        await servers[-1].registered()
        await until(ends, "it runs again, or is given up")
        await servers[-1].close()

    calls: list[asyncio.Future[Any]] = []

    def run_again_or_given_up(seen: int) -> bool:
        if not calls:
            calls.append(client.call("fragile.crash", deadline_s=60))
        return calls[0].done() or runs > seen

    while not calls or not calls[0].done():
        await serve_until(functools.partial(run_again_or_given_up, runs))
    call = calls[0]
    with pytest.raises(LostError):
        await call
    assert runs == 4  # once, and three times again


async def test_a_client_that_nobody_closed_warns_and_is_closed(broker: Broker, server: Server, until: Until) -> None:
    with pytest.warns(ResourceWarning, match="collected unclosed"):
        await asyncio.to_thread(_use, broker.endpoint)
    await until(lambda: broker.statistics()["watchers"] == 0, "it is closed, and the broker knows")


def _use(address: str) -> None:
    client = Client(address)
    client.call("echo.add", 1)
    del client
    gc.collect()
