"""A LoopSocket, its batches in C and in Python, bundled or not: what is received, what is queued, what is refused."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zmq

from datacenter.errors import ClosedError, WrongThreadError
from datacenter.sockets import SocketContext, bundles
from datacenter.sockets.batches import MOST
from datacenter.sockets.ledger import Ledger
from datacenter.sockets.loop import LoopSocket

DEADLINE_S = 10.0


class Ends(NamedTuple):
    """How the two ends are made: their batches in C or in Python, and whether frames travel together."""

    server_native: bool
    client_native: bool
    bundled: bool


WAYS = (Ends(True, True, False), Ends(False, False, False), Ends(True, False, True), Ends(False, True, True))


@pytest.fixture(params=WAYS, ids=["native", "python", "bundled-native-server", "bundled-native-client"])
def ends(request: pytest.FixtureRequest) -> Ends:
    assert isinstance(request.param, Ends)
    return request.param


@pytest.fixture
def context(ledger: Ledger) -> Iterator[SocketContext]:
    with SocketContext("test", ledger=ledger) as made:
        yield made


async def until(condition: Callable[[], object], what: str) -> None:
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < end, what
        await asyncio.sleep(0.002)


class Both:
    """A ROUTER and a DEALER that are connected, and what they received."""

    def __init__(self, context: SocketContext, ends: Ends, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        self.at_server: list[tuple[bytes, bytes]] = []
        self.at_client: list[bytes] = []
        self.refused: list[tuple[bytes, bytes, Any, bool]] = []
        self.malformed = 0
        self.writable = 0
        front = context.socket(zmq.ROUTER, owner="front", router_mandatory=True, **options)
        back = context.socket(zmq.DEALER, owner="back", **options)
        self.endpoint = front.bind("tcp://127.0.0.1:0")
        back.connect(self.endpoint)
        self.raw = back.raw
        self.server = LoopSocket(
            front, loop, lambda who, frame: self.at_server.append((who, frame)), on_malformed=self._malformed,
            on_refused=lambda *what: self.refused.append(what), native=ends.server_native, bundled=ends.bundled,
        )  # fmt: skip
        self.client = LoopSocket(
            back, loop, lambda _, frame: self.at_client.append(frame), on_writable=self._writable,
            on_refused=self._client_refused, native=ends.client_native, bundled=ends.bundled,
        )  # fmt: skip

    def _malformed(self, _who: bytes) -> None:
        self.malformed += 1

    def _client_refused(self, *what: Any) -> None:
        self.refused.append(what)
        assert not self.client.queue(b"not now")  # until room is told

    def _writable(self) -> None:
        self.writable += 1

    def __enter__(self) -> Both:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.close()


async def test_what_is_queued_in_a_turn_arrives_in_order(context: SocketContext, ends: Ends) -> None:
    sent = [b"%d" % number for number in range(3 * MOST)]
    with Both(context, ends) as both:
        for frame in sent:
            assert both.client.queue(frame)
        await until(lambda: len(both.at_server) == len(sent), "all have arrived")
        assert [frame for _, frame in both.at_server] == sent
        for who, frame in both.at_server:
            assert both.server.queue(frame[::-1], None, who)
        await until(lambda: len(both.at_client) == len(sent), "all are answered")
        assert both.at_client == [frame[::-1] for frame in sent]


async def test_sizes_from_nothing_to_larger_than_a_batch(context: SocketContext, ends: Ends) -> None:
    sent = [bytes([size % 100]) * size for size in (0, 1, 65_535, 1024, 65_536, 3, 9, 1_000_000, 0, 70_000, 1025, 5)]
    with Both(context, ends) as both:
        for frame in sent:
            both.client.queue(frame)
        await until(lambda: len(both.at_server) == len(sent), "all have arrived")
        assert [frame for _, frame in both.at_server] == sent


async def test_other_numbers_of_frames_are_dropped_and_the_next_message_is_whole(
    context: SocketContext, ends: Ends
) -> None:
    with Both(context, ends) as both:
        both.raw.send_multipart([b"a", b"b", b"c"])
        both.raw.send(b"good")
        both.raw.send_multipart([b"", b""])
        await until(lambda: both.malformed == 2, "both are noticed")
        assert [frame for _, frame in both.at_server] == [b"good"]
        assert both.server.malformed == 2


async def test_what_finds_no_room_is_given_back_in_order_and_room_is_told(context: SocketContext, ends: Ends) -> None:
    with Both(context, ends, send_high_water=5, immediate=True) as both:
        await until(lambda: both.client.send(b"first"), "the connection is there")
        both.server.loop.remove_reader(both.server._fd)  # it does not read for a while
        numbers = iter(range(1_000_000))
        sent = [b"first"]
        large = bytes(100_000)
        while not both.refused:
            number = next(numbers)
            if both.client.queue(b"%d " % number + large, number):
                sent.append(b"%d " % number + large)
            await asyncio.sleep(0)
        tokens = [token for _, _, token, gone in both.refused if not gone]
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))
        both.server.loop.add_reader(both.server._fd, both.server._drain)
        both.server._come_again()
        await until(lambda: both.writable, "room is told")
        arrived = len(sent) - len(tokens)
        await until(lambda: len(both.at_server) == arrived, "what was sent has arrived, and nothing else")
        assert [frame for _, frame in both.at_server] == sent[:arrived]


async def test_small_frames_that_find_no_room_are_given_back_and_none_of_them_was_sent(
    context: SocketContext, ends: Ends
) -> None:
    with Both(context, ends, send_high_water=2, receive_high_water=2, immediate=True) as both:
        await until(lambda: both.client.send(b"first"), "the connection is there")
        both.server.loop.remove_reader(both.server._fd)  # it does not read for a while
        sent = [b"first"]
        for number in range(1_000_000):
            if both.refused:
                break
            frame = b"%d " % number + bytes(1000)
            if both.client.queue(frame, number):
                sent.append(frame)
            if number % 100 == 0:
                await asyncio.sleep(0)
        tokens = [token for _, _, token, gone in both.refused if not gone]
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))
        both.server.loop.add_reader(both.server._fd, both.server._drain)
        both.server._come_again()
        await until(lambda: both.writable, "room is told")
        arrived = len(sent) - len(tokens)
        await until(lambda: len(both.at_server) >= arrived, "what was sent has arrived")
        both.client.send(b"last")
        await until(lambda: both.at_server[-1][1] == b"last", "the last has arrived")
        assert [frame for _, frame in both.at_server] == [*sent[:arrived], b"last"]


async def test_bundles_from_several_peers_and_to_them(context: SocketContext, ends: Ends) -> None:
    if not ends.bundled:
        return
    with Both(context, ends) as both, context.socket(zmq.DEALER, owner="by hand") as other:
        other.connect(both.endpoint)
        other.raw.send(bundles.join([b"other %d" % number for number in range(bundles.FRAMES)]))
        for malformed in (b"\xc1", b"\xc1\5\0\0\0four", bundles.join([b"a"] * (bundles.FRAMES + 1)), b"\xc1" * 20):
            other.raw.send(malformed)
        for number in range(100):
            both.client.queue(b"mine %d" % number)
        await until(lambda: len(both.at_server) == 100 + bundles.FRAMES and both.malformed == 4, "all have arrived")
        for who, frame in sorted(both.at_server, key=lambda message: int(message[1].split()[1])):  # in turns
            both.server.queue(frame, None, who)
        await until(lambda: len(both.at_client) == 100, "all are answered")
        assert both.at_client == [b"mine %d" % number for number in range(100)]
        replies: list[bytes] = []
        while len(replies) < bundles.FRAMES:
            assert other.raw.poll(int(DEADLINE_S * 1000))
            replies += bundles.split(other.raw.recv())
        assert replies == [b"other %d" % number for number in range(bundles.FRAMES)]


async def test_a_reply_to_nobody_is_given_back_as_gone(context: SocketContext, ends: Ends) -> None:
    with Both(context, ends) as both:
        both.server.queue(b"reply", "token", b"\0abcd")
        await until(lambda: both.refused, "it is told")
        assert both.refused == [(b"\0abcd", b"reply", "token", True)]


async def test_closing_sends_what_is_queued_and_taking_back_does_not(context: SocketContext, ends: Ends) -> None:
    with Both(context, ends, linger_ms=5000) as both:
        both.client.queue(b"taken back", "token")
        assert both.client.take_back() == ["token"]
        both.client.queue(b"goodbye")
        both.client.close()
        await until(lambda: both.at_server, "the last word arrives")
        assert [frame for _, frame in both.at_server] == [b"goodbye"]
        with pytest.raises(ClosedError):
            both.client.queue(b"late")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_callback_loses_no_message(
    context: SocketContext, ends: Ends, error: type[BaseException]
) -> None:
    loop = asyncio.new_event_loop()

    async def make() -> Both:
        return Both(context, ends)

    both = loop.run_until_complete(make())
    try:
        take = both.server._on_message

        def interrupted(who: bytes, frame: bytes) -> None:
            take(who, frame)
            if frame == b"3":
                raise error

        both.server._on_message = interrupted

        async def talk() -> None:
            for number in range(10):
                both.client.queue(b"%d" % number)
            await until(lambda: len(both.at_server) == 10, "never")

        with pytest.raises(error):
            loop.run_until_complete(talk())
        loop.run_until_complete(until(lambda: len(both.at_server) == 10, "the others come when the loop runs again"))
        assert [frame for _, frame in both.at_server] == [b"%d" % number for number in range(10)]
    finally:
        both.__exit__()
        loop.close()


def test_without_the_library_messages_go_through_pyzmq(tmp_path: Path) -> None:
    """A copy of the package that has no native/libbatch.so, as where there is no C compiler."""
    import datacenter

    home = Path(datacenter.__file__).parent
    (tmp_path / "datacenter").mkdir()
    for part in home.iterdir():
        if part.name not in ("sockets", "__pycache__"):
            (tmp_path / "datacenter" / part.name).symlink_to(part)
    (tmp_path / "datacenter" / "sockets").mkdir()
    for part in (home / "sockets").iterdir():
        if part.name not in ("native", "__pycache__"):
            (tmp_path / "datacenter" / "sockets" / part.name).symlink_to(part)
    program = """
import asyncio
import concurrent.futures
from datacenter import AsyncClient, Broker, Server, Service
from datacenter.sockets import batches

echo = Service("echo")

@echo.method
async def back(text: str) -> str:
    return text

async def main():
    async with Broker("tcp://127.0.0.1:0") as broker, Server(echo, broker=broker.endpoint) as server:
        async with AsyncClient(broker.endpoint) as client:
            print(await client.call("echo.back", "hello"), type(server._stream._batch).__name__)

print(batches.LIBRARY.exists())
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "hello", "PlainBatch"], done.stderr


def test_a_socket_belongs_to_one_thread(context: SocketContext, ends: Ends) -> None:
    """Both ends: before anything of libzmq is touched, whoever uses another thread's socket gets a typed error."""

    def in_thread(function: Callable[[], object]) -> BaseException | None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(function).exception(DEADLINE_S)

    async def main() -> None:
        with Both(context, ends) as both:
            owned = both.client.owned
            for use in (
                lambda: owned.raw,
                lambda: owned.connect("tcp://127.0.0.1:9"),
                lambda: both.client.queue(b"x"),
                lambda: both.client.send(b"x"),
                lambda: both.server.send_to(b"\0abcd", b"x"),
                both.client.close,
            ):
                error = await asyncio.to_thread(in_thread, use)
                assert isinstance(error, WrongThreadError), use
                assert "ownership.md" in error.hint
            assert not both.client.closed

    asyncio.run(main())
    owned = context.socket(zmq.DEALER, owner="handed over")
    assert isinstance(in_thread(lambda: owned.raw), WrongThreadError)
    assert in_thread(owned.move_here) is None
    assert owned.raw is not None  # its thread has ended: nobody else can use it
    owned.close()
