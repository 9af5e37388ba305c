"""Bad input from people and from peers: a typed error, or one message that says what to type next; never a traceback,
and whoever was asked goes on answering.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from datacenter import Client, DatacenterError, Server, Service, wire
from datacenter import errors as e
from datacenter.sockets import bundles
from datacenter.testing import Launcher, Process, RunningBroker, RunningService, free_port

Make = Callable[..., Any]


@pytest.fixture
def shop(shop_broker: RunningBroker, shop_service: RunningService) -> Iterator[Client]:
    """A client of the shop; afterwards broker and service must still run and answer."""
    with Client(shop_broker.address) as client:
        client.call("shop.pid")
        yield client
        assert client.call("shop.add", 20, b=22, deadline_s=10) == 42
    assert shop_broker.running
    assert shop_service.running


# --- the library


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp:/127.0.0.1:7700", "http://127.0.0.1:7700",
     "tcp://127.0.0.1:*", "tcp://*:7700", "tcp://[::1:7700", "tcp://no.such.host.invalid:7700", "ipc://" + "x" * 200,
     "tcp://127.0.0.1:7700\n", "udp://127.0.0.1:7700", "inproc://", "tcp://:7700", "tcp://127.0.0.1:-1", "tcp://\x00:1"],
)  # fmt: skip
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(e.AddressError) as raised:
        Client(address)
    assert repr(address) in str(raised.value) or address in str(raised.value)
    assert raised.value.hint


def test_an_address_beyond_loopback_needs_a_key_or_a_flag() -> None:
    with pytest.raises(e.InsecureAddressError, match="insecure"):
        Client("tcp://192.0.2.1:7700")


def test_a_broker_that_is_absent_is_named_with_what_to_type() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with Client(address) as client, pytest.raises(e.BrokerUnreachableError, match="datacenter up") as raised:
        client.call("shop.pid", deadline_s=0.5)
    assert address in str(raised.value)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda c: c.call("nobody.pid"), e.NoSuchServiceError, "datacenter serve"),
        (lambda c: c.call("shop.nothing"), e.NoSuchMethodError, "echo"),
        (lambda c: c.call("shop"), e.NotServableError, "SERVICE.METHOD"),
        (lambda c: c.call(""), e.NotServableError, "SERVICE.METHOD"),
        (lambda c: c.call(None), e.NotServableError, "SERVICE.METHOD"),
        (lambda c: c.call("shop.a b"), e.NotServableError, "letters"),
        (lambda c: c.call("shop.add"), e.BadArgumentsError, "a"),
        (lambda c: c.call("shop.add", "x"), e.BadArgumentsError, "int"),
        (lambda c: c.call("shop.add", 1, 2, 3), e.BadArgumentsError, "add"),
        (lambda c: c.call("shop.add", 1, c=3), e.BadArgumentsError, "c"),
        (lambda c: c.call("shop.add", 1, a=3), e.BadArgumentsError, "a"),
        (lambda c: c.call("shop.add", 2**70), e.BadArgumentsError, ""),
        (lambda c: c.call("shop.add", object()), e.BadArgumentsError, "object"),
        (lambda c: c.call("shop.add", float("nan")), e.BadArgumentsError, "int"),
        (lambda c: c.call("shop.pid", returns=str), e.BadResultError, "str"),
        (lambda c: c.call("shop.boom"), e.RemoteError, "deliberate"),
        (lambda c: c.call("shop.leave"), e.RemoteError, "7"),
        (lambda c: c.call("shop.unencodable"), e.BadResultError, ""),
        (lambda c: c.call("shop.echo", bytes(2_000_000)), e.TooLargeError, "1,048,576"),
        (lambda c: c.call("shop.large", 20_000_000), e.TooLargeError, "16,777,216"),
        (lambda c: c.call("shop.wait", 60, deadline_s=0.2), e.DeadlineError, "deadline"),
        (lambda c: c.call("shop.pid", deadline_s=0), e.DeadlineError, ""),
        (lambda c: c.call("shop.pid", deadline_s=-5), e.DeadlineError, ""),
        (lambda c: c.call("shop.pid", deadline_s=float("inf")), e.BadArgumentsError, "deadline"),
        (lambda c: c.call("shop.pid", deadline_s=float("nan")), e.BadArgumentsError, "deadline"),
        (lambda c: c.resolve("shop", type_="topic"), e.WrongTypeError, "rpc"),
        (lambda c: c.resolve("no-such-name"), e.NoSuchServiceError, "datacenter ls"),
    ],
)  # fmt: skip
def test_a_call_that_cannot_succeed_ends_with_its_own_error(
    shop: Client, shop_broker: RunningBroker, call: Callable[[Client], Any], error: type[DatacenterError], says: str
) -> None:
    with pytest.raises(error) as raised:
        call(shop)
    assert says in str(raised.value)


def test_the_first_call_of_a_client_may_be_too_large(shop_broker: RunningBroker, shop_service: RunningService) -> None:
    """The limit is not known yet when it is made: the call waits for the broker's word, and harms no other."""
    with Client(shop_broker.address) as fresh:
        too_large = fresh.submit("shop.echo_again", bytes(20_000_000), deadline_s=5)
        others = [fresh.submit("shop.wait", 0.2, deadline_s=5) for _ in range(3)]
        with pytest.raises(e.TooLargeError):
            too_large.result()
        assert [other.result() for other in others] == ["waited"] * 3
        assert fresh.statistics()["resent"] == 0


async def test_a_port_that_is_taken_is_named_with_who_may_know(
    shop_service: RunningService, shop_broker: RunningBroker
) -> None:
    server = Server(Service("other"), broker=shop_broker.address, listen=shop_service.endpoint)
    with pytest.raises(e.AddressInUseError, match="leakline holders"):
        server.start()


# --- peers


def test_two_clients_of_a_process_share_its_session(shop: Client, shop_broker: RunningBroker) -> None:
    with Client(shop_broker.address) as other:
        assert other.call("shop.add", 1, 2) == shop.call("shop.add", 1, 2) == 3
    assert shop.call("shop.add", 1, 2) == 3  # the other's end is not ours


@pytest.mark.parametrize("frames", [1, 2, 3, 51])
def test_messages_of_a_wrong_number_of_frames_are_dropped(
    shop: Client, shop_broker: RunningBroker, shop_service: RunningService, frames: int
) -> None:
    good = {
        shop_broker.address: wire.encode(wire.Hello(wire.PROTOCOL, "0", 1, "host", "test")),
        shop_service.endpoint: wire.encode(wire.OutgoingCall(1, "shop", "pid", 1000, (), {})),
    }
    with zmq.Context() as context:
        for address, message in good.items():
            with context.socket(zmq.DEALER) as peer:
                peer.linger = 0
                peer.connect(address)
                peer.send_multipart([message] * frames)
                peer.send(message)  # the same connection goes on
                answers: list[bytes] = []
                while len(answers) < (2 if frames == 1 else 1):
                    assert peer.poll(5000)
                    (answer,) = peer.recv_multipart()
                    answers += bundles.split(answer)  # two of one turn travel together
                assert not peer.poll(100)
                assert len(answers) == (2 if frames == 1 else 1)


def test_a_message_that_is_too_large_ends_its_connection_alone(
    shop: Client, shop_broker: RunningBroker, shop_service: RunningService
) -> None:
    with zmq.Context() as context:
        for address, size in ((shop_broker.address, 1 << 21), (shop_service.endpoint, 17 << 20)):
            with context.socket(zmq.DEALER) as peer, peer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
                peer.linger = 0
                peer.connect(address)
                peer.send(bytes(size))
                assert monitor.poll(10_000), f"{address} took {size} bytes"
                peer.disable_monitor()


@pytest.mark.parametrize("kind", ["echo", "greeting", "silent", "service", "closed"])
def test_what_answers_is_no_broker(shop_service: RunningService, kind: str) -> None:
    """A client whose address is another server's gets a typed error by its deadline."""
    with socket.create_server(("127.0.0.1", free_port())) as server:
        address = shop_service.endpoint if kind == "service" else f"tcp://127.0.0.1:{server.getsockname()[1]}"
        stop = threading.Event()

        def answer() -> None:
            server.settimeout(0.05)
            kept = []
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                kept.append(connection)
                if kind == "greeting":
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                elif kind == "closed":
                    connection.close()
                elif kind == "echo":
                    connection.settimeout(0.5)
                    with contextlib.suppress(OSError):
                        connection.sendall(connection.recv(1000))
            for connection in kept:
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with Client(address) as client, pytest.raises(e.BrokerUnreachableError):
                client.call("shop.pid", deadline_s=0.4)
        finally:
            stop.set()
            thread.join()


def test_an_instance_registered_with_a_nonsense_endpoint_keeps_nobody_from_the_others(
    shop: Client, shop_broker: RunningBroker
) -> None:
    endpoints = ("", "nonsense", "tcp://", "tcp://*:*", "inproc://x", "ipc:///dev/null",
                 "tcp://127.0.0.1:99999", "tcp://192.0.2.1:7700", "tcp://\x00:1",
                 "tcp://no.such.host.invalid:1", "ipc://" + "é" * 100)  # fmt: skip
    with zmq.Context() as context, context.socket(zmq.DEALER) as rogue:
        rogue.linger = 0
        rogue.connect(shop_broker.address)
        rogue.send(wire.encode(wire.Hello(wire.PROTOCOL, "0", 1, "host", "rogue")))
        for number, endpoint in enumerate(endpoints):
            instance = wire.Instance(f"rogue-{number}", endpoint, (wire.Method("pid"),))
            rogue.send(wire.encode(wire.Register(number, "shop", "rpc", instance)))
        for _ in range(1 + len(endpoints)):
            assert rogue.poll(5000)
            rogue.recv()
        for number in range(100):
            assert shop.call("shop.add", number, 1, deadline_s=5) == number + 1
        with Client(shop_broker.address) as fresh:
            assert fresh.call("shop.add", 1, 1, deadline_s=5) == 2
        rogue.send(wire.encode(wire.Bye()))


@pytest.mark.parametrize(
    "reply", [[b"not a reply"], [b""], [b"one", b"two"], [b"x"] * 50], ids=["bad", "empty", "two", "many"]
)
def test_a_service_that_answers_nonsense_costs_its_calls_alone(
    shop: Client, shop_broker: RunningBroker, reply: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bad, context.socket(zmq.DEALER) as session:
        bad.linger = session.linger = 0
        port = free_port()
        bad.bind(f"tcp://127.0.0.1:{port}")
        session.connect(shop_broker.address)
        session.send(wire.encode(wire.Hello(wire.PROTOCOL, "0", 1, "host", "bad")))
        instance = wire.Instance("bad-1", f"tcp://127.0.0.1:{port}", (wire.Method("answer"),))
        session.send(wire.encode(wire.Register(1, "bad", "rpc", instance)))
        assert session.poll(5000)
        call = shop.submit("bad.answer", deadline_s=5)
        assert bad.poll(5000)
        who, _ = bad.recv_multipart()
        bad.send_multipart([who, *reply])
        with pytest.raises(e.LostError):
            call.result()
        session.send(wire.encode(wire.Bye()))
    assert not [record for record in caplog.records if record.exc_info]


# --- the command line

CASES: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "up at a port that is none": (2, "65535", ("up", "--listen", "tcp://127.0.0.1:70000")),
    "up with a wrong option": (2, "Try 'datacenter up -h'", ("up", "--no-such-option")),
    "serve at a taken port": (
        3,
        "leakline holders",
        ("serve", "shop:shop", "--broker", "BROKER", "--listen", "SERVICE"),
    ),
    "serve at no address": (2, "tcp://127.0.0.1:7700", ("serve", "shop:shop", "--broker", "BROKER", "--listen", "x")),
    "serve with no broker address": (2, "tcp://127.0.0.1:7700", ("serve", "shop:shop", "--broker", "x")),
    "call without a broker": (3, "datacenter up", ("call", "shop.pid", "--broker", "NOBODY", "-d", "0.5")),
    "call what raises": (1, "deliberate", ("call", "shop.boom", "--broker", "BROKER")),
}


@pytest.fixture(scope="module")
def commands(lasting: Launcher, shop_broker: RunningBroker, shop_service: RunningService) -> dict[str, Process]:
    """All commands of CASES, started at once: each is mostly Python's own start."""
    actual = {
        "BROKER": shop_broker.address,
        "SERVICE": shop_service.endpoint,
        "NOBODY": f"tcp://127.0.0.1:{free_port()}",
    }
    return {name: lasting.command(*(actual.get(word, word) for word in words)) for name, (_, _, words) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_command_says_what_is_wrong_and_what_to_type(commands: dict[str, Process], name: str) -> None:
    status, says, _ = CASES[name]
    command = commands[name]
    assert command.wait(30) == status, command.errors
    assert says in command.errors
    assert "Traceback" not in command.errors
    assert len(command.errors.strip().splitlines()) <= 8
    assert not command.lines
