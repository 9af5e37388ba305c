"""A gateway's front in this process: real connections, real servers, whatever dies first."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import hiredis
import pytest

from datacenter.gateway.front import Balance, Front
from datacenter.gateway.options import GatewayOptions
from datacenter.sockets.ledger import Ledger
from datacenter.testing.launcher import Launcher
from datacenter.testing.ports import free_port
from datacenter.testing.processes import Process
from datacenter.wire import Instance
from redis_servers import start_redis

DEADLINE_S = 20.0
Until = Callable[[Callable[[], object], str], Awaitable[None]]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def instance(port: int, health: str = "healthy") -> Instance:
    return Instance(f"it-{port}", f"tcp://127.0.0.1:{port}", metadata={"health": health})


@contextlib.asynccontextmanager
async def front(
    *instances: Instance, options: GatewayOptions | None = None, balance: Balance = "least-connections"
) -> AsyncIterator[tuple[Front, int]]:
    """A front of these instances, and the port that it listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ledger = Ledger.open()
        made = Front(listener, balance, options or GatewayOptions(connect_s=1.0, drain_s=0.5), ledger=ledger)
        await made.start()
        made.update(instances)
        try:
            yield made, port
        finally:
            await made.abort()
            assert not [entry for entry in ledger.entries() if entry.owner.startswith("gateway")]
            ledger.close()


@contextlib.asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[int]:
    """A server that handles each connection so, and closes it; its port."""

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task) if (task := asyncio.current_task()) else None
        try:
            with contextlib.suppress(ConnectionError):
                await handle(reader, writer)
        finally:
            writer.close()

    tasks: set[asyncio.Task[None]] = set()
    made = await asyncio.start_server(handled, "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says where it is, and keeps the connection until the other side ends it."""
    writer.write(b"%d\n" % writer.get_extra_info("sockname")[1])
    await reader.read()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the connection ends, in order or by a reset."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.wait_for(reader.read(1 << 16), DEADLINE_S):
            data += piece
    return data


async def test_bytes_go_both_ways_whole_however_slowly_they_are_taken(until: Until) -> None:
    payload = bytes(range(256)) * 40_000
    async with server(echo) as port, front(instance(port)) as (made, at), connected(at) as (reader, writer):
        writer.write(payload)
        writer.write_eof()  # our half has ended; the other goes on
        await until(lambda: made.statistics()["backends"] == {f"tcp://127.0.0.1:{port}": 1}, "the tunnel")
        await asyncio.sleep(0)
        received = await ended(reader)
        assert received == payload
        await until(lambda: made.statistics()["clients"] == 0, "both sides are closed")
        assert made.statistics()["backends"] == {f"tcp://127.0.0.1:{port}": 0}


async def test_connections_are_spread_and_a_quiet_server_gets_no_new_ones(until: Until) -> None:
    async with server(hold) as one, server(hold) as two, front(instance(one), instance(two)) as (made, at):
        async with contextlib.AsyncExitStack() as stack:
            places = []
            for _ in range(6):
                reader, _ = await stack.enter_async_context(connected(at))
                places.append(int(await reader.readline()))
            assert sorted(places) == sorted([one] * 3 + [two] * 3)
            made.update([instance(one, "quiet"), instance(two)])
            for _ in range(3):
                reader, _ = await stack.enter_async_context(connected(at))
                assert int(await reader.readline()) == two
        await until(lambda: made.statistics()["clients"] == 0, "all are gone")


async def test_a_backend_that_refuses_or_does_not_answer_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as refused:
        refusing = refused.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        deaf = full.getsockname()[1]
        for _ in range(4):  # its queue is full: the kernel drops what comes
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", deaf))
        options = GatewayOptions(connect_s=0.3)
        async with server(hold) as port:
            async with front(instance(refusing), instance(deaf), instance(port), options=options) as (_, at):
                for _ in range(3):
                    async with connected(at) as (reader, _):
                        assert int(await reader.readline()) == port
            async with front(instance(refusing), options=options) as (made, at), connected(at) as (reader, _):
                assert await ended(reader) == b""
                assert made.statistics()["refused"] == 1


async def test_whichever_side_dies_first_the_other_is_closed(until: Until) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"last words\n")
        await writer.drain()
        await reader.readline()

    for handle in (hold, reset):
        async with server(handle) as port, front(instance(port)) as (made, at):
            async with connected(at) as (reader, writer):
                await reader.readline()
                writer.write(b"go\n")
                if handle is hold:
                    writer.transport.abort()  # the client dies
                else:
                    assert await ended(reader) == b""  # the server ended it
            await until(lambda made=made: made.statistics()["clients"] == 0, "no connection is left")


async def test_a_client_that_leaves_while_its_backend_is_looked_for(until: Until) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with front(instance(full.getsockname()[1]), options=GatewayOptions(connect_s=0.2)) as (made, at):
            for _ in range(20):
                async with connected(at):
                    pass
            await until(lambda: made.counts["accepted"] == 20 and made.statistics()["clients"] == 0, "all are gone")


async def test_beyond_the_limit_clients_are_turned_away(until: Until) -> None:
    options = GatewayOptions(max_connections=2, drain_s=0.2)
    async with server(hold) as port, front(instance(port), options=options) as (made, at):
        async with connected(at) as (one, _), connected(at) as (two, _), connected(at) as (three, _):
            assert await one.readline()
            assert await two.readline()
            assert await ended(three) == b""
        await until(lambda: made.statistics()["clients"] == 0, "all are gone")
        async with connected(at) as (again, _):
            assert await again.readline()
        assert made.counts["turned_away"] == 1


async def test_connections_to_a_server_that_left_end_after_the_drain(until: Until) -> None:
    async with server(hold) as one, server(hold) as two, front(instance(one)) as (made, at):
        reader, writer = await asyncio.open_connection("127.0.0.1", at)
        await reader.readline()
        made.update([instance(two)])
        async with connected(at) as (other, _):
            assert int(await other.readline()) == two
            assert await ended(reader) == b""
            writer.close()
            assert made.statistics()["clients"] == 1
            await made.drain()
            assert await ended(other) == b""


# --- sharded Redis


@pytest.fixture
def redises(launcher: Launcher) -> list[tuple[Process, int]]:
    return [start_redis(launcher) for _ in range(3)]


class Redis:
    """A client of one connection: `await ask([...])` sends commands in one piece and returns their replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._parser = hiredis.Reader(encoding="utf-8")

    async def ask(self, commands: list[str]) -> list[object]:
        for command in commands:
            self._writer.write(hiredis.pack_command(tuple(command.split())))  # type: ignore[arg-type]
        replies: list[object] = []
        while len(replies) < len(commands):
            reply = self._parser.gets()
            if reply is not False:
                replies.append(reply)
                continue
            data = await asyncio.wait_for(self._reader.read(1 << 16), DEADLINE_S)
            assert data, f"ended after {replies}"
            self._parser.feed(data)
        return replies


async def ready(client: Redis) -> None:
    """Until every shard has answered."""
    probes = [f"GET {key}" for key in range(60)]
    for _ in range(int(DEADLINE_S / 0.01)):
        if not any(isinstance(reply, Exception) for reply in await client.ask(probes)):
            return
        await asyncio.sleep(0.01)
    pytest.fail("not every shard has answered")


async def test_once_it_is_prepared_its_first_requests_are_answered(redises: list[tuple[Process, int]]) -> None:
    async with front(*[instance(port) for _, port in redises], balance="redis-keys") as (made, at):
        await made.prepared()
        async with connected(at) as (reader, writer):
            assert await Redis(reader, writer).ask([f"GET {key}" for key in range(60)]) == [None] * 60


async def test_each_key_has_its_server_and_replies_keep_their_order(redises: list[tuple[Process, int]]) -> None:
    instances = [instance(port) for _, port in redises]
    async with front(*instances, balance="redis-keys") as (_, at), connected(at) as (reader, writer):
        client = Redis(reader, writer)
        await ready(client)
        keys = [f"k{number}" for number in range(500)]
        assert await client.ask([f"SET {key} {key}" for key in keys]) == ["OK"] * 500
        assert await client.ask([f"GET {key}" for key in keys]) == keys
        assert await client.ask(["PING", f"MGET {' '.join(keys)} none", f"EXISTS {' '.join(keys)}"]) == [
            "PONG", [*keys, None], 500,
        ]  # fmt: skip
        sizes = []
        for _, port in redises:
            async with connected(port) as streams:
                sizes += await Redis(*streams).ask(["DBSIZE"])
        assert sum(sizes) == 500  # type: ignore[arg-type]
        assert min(sizes) > 50  # type: ignore[type-var, operator]
        moved, flushed, renamed, bad = await client.ask(
            [f"SINTER {' '.join(keys)}", "FLUSHALL", "RENAME {k1}a {k1}b", "NOSUCH"]
        )
        assert "CROSSSLOT" in str(moved)
        assert "names no key" in str(flushed)
        assert "no such key" in str(renamed)
        assert "unknown command" in str(bad)
        assert await client.ask([f"DEL {' '.join(keys)}"]) == [500]


async def test_requests_of_every_kind_in_one_pipeline_are_done_and_answered_in_order(
    redises: list[tuple[Process, int]],
) -> None:
    instances = [instance(port) for _, port in redises]
    async with front(*instances, balance="redis-keys") as (made, at), connected(at) as (reader, writer):
        client = Redis(reader, writer)
        await ready(client)
        turns = range(made.options.max_pipeline)  # five requests each
        asked = [
            f"{verb}{number % 7} {value}".strip()
            for number in turns
            for verb, value in (
                ("SET k", str(number)), ("PING ", ""), ("MGET none k", ""), ("iNcR k", ""), ("NOSUCH k", ""),
            )
        ]  # fmt: skip
        replies = await client.ask(asked)
        assert {str(reply) for reply in replies[4::5]} == {"ERR unknown command 'nosuch'"}
        assert [replies[at : at + 4] for at in range(0, len(replies), 5)] == [
            ["OK", str(number % 7), [None, str(number)], number + 1] for number in turns
        ]
        assert set(made.statistics()["backends"].values()) == {0}  # type: ignore[attr-defined]


async def test_a_shard_that_dies_costs_its_requests_and_no_others(
    redises: list[tuple[Process, int]], until: Until
) -> None:
    instances = [instance(port) for _, port in redises]
    async with front(*instances, balance="redis-keys") as (made, at), connected(at) as (reader, writer):
        client = Redis(reader, writer)
        await ready(client)
        keys = [f"k{number}" for number in range(60)]
        await client.ask([f"SET {key} x" for key in keys])
        redises[0][0].kill()
        lost: list[object] = []
        while not lost:
            lost = [reply for reply in await client.ask([f"GET {key}" for key in keys]) if reply != "x"]
        assert 0 < len(lost) < 60
        assert all(f"redis at 127.0.0.1:{redises[0][1]}: " in str(reply) for reply in lost)
        made.update(instances[1:])  # its keys, and no others, go to the rest
        replies = await client.ask([f"GET {key}" for key in keys])
        assert [reply for reply in replies if reply is not None] == ["x"] * (60 - len(lost))
        assert sum(reply is None for reply in replies) == len(lost)


async def test_what_comes_while_a_shard_restarts_waits_for_it_unless_who_asked_has_gone(
    redises: list[tuple[Process, int]], launcher: Launcher, until: Until
) -> None:
    options = GatewayOptions(connect_s=1.0, drain_s=0.5, return_s=DEADLINE_S)
    server, port = redises[0]
    waiting = f"tcp://127.0.0.1:{port}"
    async with (
        front(*[instance(port) for _, port in redises], options=options, balance="redis-keys") as (made, at),
        connected(at) as (reader, writer),
    ):
        client = Redis(reader, writer)
        await ready(client)
        server.kill()
        launcher.release(server)
        async with connected(at) as (_, other):
            for number in range(300):
                other.write(hiredis.pack_command(("SET", f"other{number}", "1")))
            await until(lambda: made.statistics()["backends"][waiting] > 10, "some wait")  # type: ignore[index]
        asked = asyncio.create_task(client.ask([f"SET k{number} 1" for number in range(300)]))
        async with connected(at) as streams:
            assert await Redis(*streams).ask(["PING"]) == ["PONG"]  # by now it is known that the other has gone
        assert not asked.done()
        await asyncio.to_thread(start_redis, launcher, port)
        replies = await asked
        lost = [reply for reply in replies if reply != "OK"]
        assert not [reply for reply in lost if "whether the request was carried out is unknown" not in str(reply)]
        async with connected(port) as streams:
            keys = (await Redis(*streams).ask(["KEYS *"]))[0]
        assert keys
        assert not [key for key in keys if key.startswith("other")]  # type: ignore[attr-defined]


async def test_what_waits_for_a_shard_goes_to_the_rest_when_it_leaves(
    redises: list[tuple[Process, int]], until: Until
) -> None:
    options = GatewayOptions(connect_s=1.0, drain_s=0.5, return_s=DEADLINE_S)
    instances = [instance(port) for _, port in redises]
    async with (
        front(*instances, options=options, balance="redis-keys") as (made, at),
        connected(at) as (reader, writer),
    ):
        client = Redis(reader, writer)
        await ready(client)
        redises[0][0].kill()
        keys = [f"k{number}" for number in range(300)]
        asked = asyncio.create_task(client.ask([*[f"SET {key} 1" for key in keys], f"MGET {' '.join(keys)}"]))
        waiting = f"tcp://127.0.0.1:{redises[0][1]}"
        await until(lambda: made.statistics()["backends"][waiting] > 10, "some wait")  # type: ignore[index]
        made.update(instances[1:])
        *replies, values = await asked
        lost = [reply != "OK" for reply in replies]  # sent before the end of the connection was known
        assert all("whether the request was carried out is unknown" in str(reply) for reply in replies if reply != "OK")
        assert values == [None if each else "1" for each in lost]


async def test_a_server_that_loads_its_data_is_not_back_yet(launcher: Launcher) -> None:
    port = free_port()
    words = ("redis-server", "--port", str(port), "--save", "", "--dbfilename", "loaded.rdb")

    async def direct(*commands: str) -> list[object]:
        async with connected(port) as streams:
            return await Redis(*streams).ask(list(commands))

    server = launcher.program(*words)
    server.wait_line("Ready to accept connections")
    assert set(await direct(*[f"SET k{number} {number}" for number in range(3000)], "SAVE")) == {"OK"}
    options = GatewayOptions(connect_s=1.0, drain_s=0.5, return_s=DEADLINE_S)
    async with (
        front(instance(port), options=options, balance="redis-keys") as (_, at),
        connected(at) as (reader, writer),
    ):
        client = Redis(reader, writer)
        await ready(client)
        server.kill()
        launcher.release(server)
        # 6 s, in which it answers -LOADING.
        launcher.program(*words, "--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
        said = ""
        while not said:
            with contextlib.suppress(ConnectionError):
                said = str((await direct("GET k1"))[0])
        assert "LOADING" in said
        replies = await client.ask([f"GET k{number}" for number in range(3000)])
        wrong = [reply for number, reply in enumerate(replies) if reply != str(number)]
        assert not [reply for reply in wrong if "whether the request was carried out is unknown" not in str(reply)]
        assert len(wrong) < 3000


async def test_what_waits_for_a_shard_is_told_when_it_stays_away(redises: list[tuple[Process, int]]) -> None:
    options = GatewayOptions(connect_s=1.0, drain_s=0.5, return_s=0.2)
    async with (
        front(instance(redises[0][1]), options=options, balance="redis-keys") as (_, at),
        connected(at) as (reader, writer),
    ):
        client = Redis(reader, writer)
        await ready(client)
        redises[0][0].kill()
        while True:
            (reply,) = await client.ask(["GET k"])
            if "not sent" in str(reply):
                break
        (reply,) = await client.ask(["GET k"])
        assert "is not connected (Connect call failed" in str(reply) or "not sent" in str(reply)


async def test_a_request_in_pieces_by_hand_and_what_is_no_request(redises: list[tuple[Process, int]]) -> None:
    async with front(instance(redises[0][1]), balance="redis-keys") as (_, at), connected(at) as (reader, writer):
        await ready(Redis(reader, writer))
        for piece in (b"*2\r\n$3\r\nGE", b"T\r\n$1", b"\r\na\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # a packet of its own
        assert await reader.readline() == b"$-1\r\n"
        writer.write(b"SET a 1\r\nGET a\r\n")
        assert [await reader.readline() for _ in range(3)] == [b"+OK\r\n", b"$1\r\n", b"1\r\n"]
        for piece in (b"*2\r\n$3\r\nGET\r\n", b"$1\r\na\r\nSET b 'c", b" d'\r\nget b\r\n*1\r\n$4\r\nPING\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert [await reader.readline() for _ in range(6)] == [
            b"$1\r\n", b"1\r\n", b"+OK\r\n", b"$3\r\n", b"c d\r\n", b"+PONG\r\n",
        ]  # fmt: skip
        writer.write(b"*1\r\n$4\r\nPING\r\n*1\r\n:5\r\n")
        assert (await ended(reader)).startswith(b"+PONG\r\n-ERR Protocol error")


async def test_a_drain_answers_what_was_asked(redises: list[tuple[Process, int]], until: Until) -> None:
    nothing = {f"tcp://127.0.0.1:{redises[0][1]}": 0}
    only = instance(redises[0][1])
    async with front(only, balance="redis-keys") as (made, at), connected(at) as (reader, writer):
        client = Redis(reader, writer)
        await ready(client)
        for number in range(2000):
            writer.write(hiredis.pack_command(("SET", f"k{number}", "1")))
        await until(lambda: made.statistics()["backends"] != nothing, "requests are in flight")
        draining = asyncio.create_task(made.drain())
        replies = b""
        while data := await asyncio.wait_for(reader.read(1 << 16), DEADLINE_S):  # to its end in order: by no reset
            replies += data
        writer.close()
        await draining
        async with connected(redises[0][1]) as streams:
            (size,) = await Redis(*streams).ask(["DBSIZE"])
        assert replies == b"+OK\r\n" * int(str(size))  # what was done, and no more
        assert size


@pytest.mark.parametrize("balance", ["least-connections", "redis-keys"])
async def test_a_drain_serves_whom_the_kernel_has_accepted(
    redises: list[tuple[Process, int]], balance: Balance
) -> None:
    async with front(instance(redises[0][1]), balance=balance) as (made, at):
        with contextlib.ExitStack() as stack:
            queued = [stack.enter_context(socket.create_connection(("127.0.0.1", at))) for _ in range(8)]
            for each in queued[1:]:
                each.sendall(b"PING\r\n")
            draining = asyncio.create_task(made.drain())
            queued[0].sendall(b"PING\r\n")
            for each in queued:
                each.setblocking(False)
                answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(each, 100), DEADLINE_S)
                assert answer == b"+PONG\r\n"
            for each in queued:
                each.close()
        await draining
        assert made.clients == 0
