"""A relay with real clients and services: what it moves, what it refuses, and its end in every state. Both loops."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq
from relay_peers import (
    HALF_A_MESSAGE,
    Connect,
    EchoService,
    call_frame,
    echo_service,
    expect_replies,
    receive_frame,
    receive_reply,
    shake_hands,
    wait_until,
)

from datacenter import Broker, Server, Service, wire
from datacenter.broker.relay import Relay, RelayOptions
from datacenter.errors import AddressInUseError, ClosedError, InsecureAddressError
from datacenter.sockets import OwnedSocket, SocketContext, bundles

#: far above the few milliseconds that it takes, far below any timeout that could hide a wait
STOP_S = 0.5


pytestmark = pytest.mark.usefixtures("ledger_equals_proc")


@pytest.fixture
def echo(peers: SocketContext, relay: Relay) -> Iterator[EchoService]:
    with echo_service(peers) as service:
        relay.set_instances([service.endpoint])
        yield service


def payload(number: int) -> bytes:
    return bytes([number % 251]) * (number * 37 % 3000)


def round_trip(client: OwnedSocket, numbers: range = range(10)) -> None:
    client.move_here()
    for number in numbers:
        client.raw.send(call_frame(number, payload(number)))
    expect_replies(client, set(numbers), payload)


def in_flight(relay: Relay, endpoint: str) -> int:
    return sum(each.in_flight for each in relay.statistics().instances if each.endpoint == endpoint)


def handed_over(relay: Relay, calls: int) -> bool:
    return relay.statistics().counts.calls == calls


def idles(relay: Relay, endpoint: str) -> bool:
    return in_flight(relay, endpoint) == 0


# --- what it moves


def test_each_reply_returns_to_its_caller_whole(relay: Relay, peers: SocketContext, connect: Connect) -> None:
    """The same numbers from all clients at once, sizes on both sides of what libzmq keeps inline and copies."""
    with echo_service(peers) as one, echo_service(peers) as two:
        relay.set_instances([one.endpoint, two.endpoint])
        wait_until(lambda: relay.connected() == 2, "both instances are connected")
        clients = [connect() for _ in range(5)]
        for number in range(300):
            for client in clients:
                client.raw.send(call_frame(number, payload(number)))
        for client in clients:
            expect_replies(client, set(range(300)), payload)
        wait_until(lambda: relay.statistics().counts.replies == 1500, "all are counted")
        assert relay.statistics().counts.calls == 1500
        assert min(one.calls, two.calls) > 300, "both get their share"


def test_calls_that_travel_together_are_calls_of_their_own(
    relay: Relay, peers: SocketContext, connect: Connect
) -> None:
    """Bundles of several clients, for several instances; what is malformed in them is dropped, and nothing else."""
    with echo_service(peers) as one, echo_service(peers) as two:
        relay.set_instances([one.endpoint, two.endpoint])
        wait_until(lambda: relay.connected() == 2, "both instances are connected")
        clients = [connect() for _ in range(3)]
        every = bundles.FRAMES
        for first in range(0, 10 * every, every):
            bundle = bundles.join([call_frame(number, bytes([number % 251])) for number in range(first, first + every)])
            for client in clients:
                client.raw.send(bundle)
                client.raw.send(bundle[:-1])
        for client in clients:
            expect_replies(client, set(range(10 * every)), lambda number: bytes([number % 251]))
        mixed = [call_frame(10 * every, b"a"), b"no call", call_frame(10 * every + 1, b"b" * 3000), b"\x93\1\2\3"]
        clients[0].raw.send(bundles.join(mixed))
        expect_replies(clients[0], {10 * every, 10 * every + 1}, lambda number: b"b" * 3000 if number % 2 else b"a")
        wait_until(lambda: relay.statistics().counts.replies == 30 * every + 2, "all are counted")
        assert relay.statistics().counts.malformed_calls == 30 + 2
        assert one.calls + two.calls == relay.statistics().counts.calls == 30 * every + 2


def test_replies_that_travel_together_are_told_each_to_its_client(
    relay: Relay, peers: SocketContext, connect: Connect
) -> None:
    """Also from an instance that dies before it has answered all of a bundle: the others are lost, each once."""
    clients = [connect() for _ in range(2)]
    with peers.socket(zmq.ROUTER, owner="dying", linger_ms=5000) as dying:
        relay.set_instances([dying.bind("tcp://127.0.0.1:*")])
        for client in clients:
            client.raw.send(bundles.join([call_frame(number) for number in range(20)]))
        calls = [receive_frame(dying) for _ in range(40)]
        who = calls[0][0]
        replies = [wire.encode(wire.OutgoingResult(wire.decode_call(frame).id, b"")) for _, frame in calls]
        for message in (bundles.join(replies[:25]), bundles.join(replies[:25])[:-1], bundles.join(replies[20:30])):
            dying.raw.send(who, zmq.SNDMORE)
            dying.raw.send(message)
    ended = [[receive_reply(client) for _ in range(20)] for client in clients]
    for each in ended:
        assert sorted(number for number, _ in each) == list(range(20))
    kinds = [isinstance(reply, wire.Result) for each in ended for _, reply in each]
    assert (kinds.count(True), kinds.count(False)) == (30, 10)
    wait_until(lambda: relay.statistics().counts.lost == 10, "all are counted")
    counts = relay.statistics().counts
    assert (counts.replies, counts.unknown_replies, counts.malformed_replies) == (30, 5, 1)


def test_a_real_service_is_served_unchanged(
    context: SocketContext, peers: SocketContext, options: RelayOptions
) -> None:
    service = Service("echo")

    @service.method
    async def back(value: bytes) -> bytes:
        return value

    async def play() -> None:
        async with Broker("tcp://127.0.0.1:0") as broker, Server(service, broker=broker.endpoint) as server:
            with Relay("echo", context, options=options) as relay, peers.socket(zmq.DEALER, owner="client") as client:
                relay.set_instances([server.endpoint])
                client.connect(relay.endpoint)
                await asyncio.to_thread(round_trip, client, range(100))

    asyncio.run(play())


def test_a_hanging_instance_gets_fewer_calls(relay: Relay, peers: SocketContext, connect: Connect) -> None:
    with echo_service(peers) as good, echo_service(peers) as stuck:
        relay.set_instances([good.endpoint, stuck.endpoint])
        wait_until(lambda: relay.connected() == 2, "both instances are connected")
        stuck.hold()
        client = connect()
        for first in range(0, 400, 10):
            for number in range(first, first + 10):
                client.raw.send(call_frame(number, payload(number)))
            wait_until(functools.partial(handed_over, relay, first + 10), "these ten are handed over")
            wait_until(functools.partial(idles, relay, good.endpoint), "the good one has answered")
        assert in_flight(relay, stuck.endpoint) <= 20, "in turns it would be 200"
        stuck.go_on()
        expect_replies(client, set(range(400)), payload)


def test_calls_wait_while_there_is_no_instance(relay: Relay, peers: SocketContext, connect: Connect) -> None:
    client = connect()
    for number in range(50):
        client.raw.send(call_frame(number, payload(number)))
    wait_until(lambda: relay.statistics().clients == 1, "the client is connected")
    with echo_service(peers) as service:
        relay.set_instances([service.endpoint])
        expect_replies(client, set(range(50)), payload)


def test_instances_come_and_go_under_traffic_and_nothing_is_lost(
    relay: Relay, peers: SocketContext, connect: Connect
) -> None:
    """A rolling restart: each in turn leaves the list while calls flow; what it was handed is answered first."""
    with echo_service(peers) as one, echo_service(peers) as two, echo_service(peers) as three:
        all_three = [one.endpoint, two.endpoint, three.endpoint]
        relay.set_instances(all_three)
        wait_until(lambda: relay.connected() == 3, "all instances are connected")
        client = connect()
        for first in range(0, 3000, 100):
            for number in range(first, first + 100):
                client.raw.send(call_frame(number, payload(number)))
            away = all_three[first // 100 % 3]
            relay.set_instances([endpoint for endpoint in all_three if endpoint != away])
            expect_replies(client, set(range(first, first + 100)), payload)
            relay.set_instances(all_three)
        wait_until(lambda: len(relay.statistics().instances) == 3, "those that left are let go of")


def test_an_instance_that_dies_comes_back_at_its_address(relay: Relay, peers: SocketContext, connect: Connect) -> None:
    with peers.socket(zmq.ROUTER, owner="dying") as dying:
        address = dying.bind("tcp://127.0.0.1:*")
        relay.set_instances([address])
        client = connect()
        client.raw.send(call_frame(1))
        assert dying.raw.poll(5000)
    wait_until(lambda: relay.connected() == 0, "its end is seen")
    client.raw.send(call_frame(2, payload(2)))
    number, reply = receive_reply(client)
    assert (number, getattr(reply, "code", "")) == (1, "lost")
    with peers.socket(zmq.ROUTER, owner="heir") as heir:

        def bound() -> bool:
            try:
                return bool(heir.bind(address))
            except AddressInUseError:
                return False

        wait_until(bound, "its port is free")
        assert heir.raw.poll(5000)
        who, frame = receive_frame(heir)
        assert frame.endswith(payload(2) + b"\x80"), "the call after the outage, not the one before"
        heir.raw.send(who, zmq.SNDMORE)
        heir.raw.send(wire.encode(wire.OutgoingResult(wire.decode_call(frame).id, payload(2))))
        expect_replies(client, {2}, payload)


# --- what it refuses


def test_garbage_is_dropped_whole_and_counted(relay: Relay, echo: EchoService, connect: Connect) -> None:
    client = connect()
    client.raw.send_multipart([b"x"] * 60)  # of more the connection ends (peer guard)
    client.raw.send_multipart([call_frame(1), b"more"])
    client.raw.send(b"")
    client.raw.send(call_frame(1 << 40))  # a label of its own
    wait_until(lambda: relay.statistics().counts.malformed_calls == 4, "four are counted")
    round_trip(client)
    assert relay.statistics().counts.calls == 10


def test_an_address_in_use_and_one_beyond_loopback(context: SocketContext, relay: Relay) -> None:
    with pytest.raises(AddressInUseError):
        Relay("second", context, listen=relay.endpoint)
    with pytest.raises(InsecureAddressError):
        Relay("open", context, listen="tcp://*:0")


def test_an_instance_with_a_host_name_is_not_looked_up_and_the_others_work(
    relay: Relay, peers: SocketContext, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with echo_service(peers) as one, echo_service(peers) as named:
        by_name = named.endpoint.replace("127.0.0.1", "localhost")
        relay.set_instances([by_name, one.endpoint])
        wait_until(lambda: relay.connected() == 1 and by_name in caplog.text, "the other is connected")
        assert "not looked up here" in caplog.text
        round_trip(connect())
        assert named.calls == 0


def test_an_instance_beyond_loopback_is_refused_and_the_others_work(
    relay: Relay, echo: EchoService, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    relay.set_instances(["tcp://192.0.2.1:7", echo.endpoint])
    round_trip(connect())
    wait_until(lambda: "no connection to tcp://192.0.2.1:7" in caplog.text, "it is logged")


# --- its end, in seven states


def idle(relay: Relay, echo: EchoService, connect: Connect) -> None:
    round_trip(connect())


def busy(relay: Relay, echo: EchoService, connect: Connect) -> None:
    client = connect()
    for number in range(900):
        client.raw.send(call_frame(number, payload(number)))
    wait_until(lambda: relay.statistics().counts.replies > 50, "traffic flows")


def instance_not_reading(relay: Relay, echo: EchoService, connect: Connect) -> None:
    """The state in which zmq_proxy sits in a blocking send: every queue to the instance is full."""
    wait_until(lambda: relay.connected() == 1, "it is connected")
    echo.hold()
    client, body = connect(send_high_water=0), bytes(4000)
    for number in range(20_000):
        client.raw.send(call_frame(number, body))
    wait_until(lambda: relay.statistics().counts.calls > 1000, "the queues fill")
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.01)
        if relay.statistics().counts.calls != last:
            last, since = relay.statistics().counts.calls, time.monotonic()
    assert last < 20_000, "the queues are full, and the rest waits at the client"


def many_parts(relay: Relay, echo: EchoService, connect: Connect) -> None:
    client = connect()
    for _ in range(20):
        client.raw.send_multipart([b"x"] * 60)
    round_trip(connect())


def client_gone_in_mid_message(relay: Relay, echo: EchoService, connect: Connect) -> None:
    port = int(relay.endpoint.rpartition(":")[2])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as peer:
            shake_hands(peer, b"DEALER")
            peer.sendall(HALF_A_MESSAGE)
    round_trip(connect())
    wait_until(lambda: relay.statistics().clients == 1, "they are gone")


def instance_gone_in_mid_message(relay: Relay, echo: EchoService, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        relay.set_instances([echo.endpoint, f"tcp://127.0.0.1:{listener.getsockname()[1]}"])
        for _ in range(3):
            with listener.accept()[0] as peer:
                shake_hands(peer, b"ROUTER")
                peer.sendall(HALF_A_MESSAGE)
    relay.set_instances([echo.endpoint])
    wait_until(lambda: len(relay.statistics().instances) == 1, "the dying one is let go of")
    round_trip(connect())


STATES = [
    idle,
    busy,
    instance_not_reading,
    many_parts,
    client_gone_in_mid_message,
    instance_gone_in_mid_message,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_stop_is_bounded_in_every_state(
    relay: Relay, echo: EchoService, connect: Connect, state: Callable[[Relay, EchoService, Connect], None]
) -> None:
    state(relay, echo, connect)
    report = relay.stop()
    assert report.clean
    assert report.seconds < STOP_S
    assert relay.stop().clean
    echo.go_on()


def test_stop_is_bounded_while_a_client_does_not_read_and_others_are_served(
    context: SocketContext, peers: SocketContext, options: RelayOptions
) -> None:
    """The seventh state. Its replies have no room; they are counted, and nobody else waits for it."""
    small = dataclasses.replace(options, client_high_water=10)
    with (
        Relay("echo", context, options=small) as relay,
        echo_service(peers) as service,
        peers.socket(zmq.DEALER, owner="deaf", send_high_water=0, receive_high_water=1) as deaf,
        peers.socket(zmq.DEALER, owner="good") as good,
    ):
        relay.set_instances([service.endpoint])
        deaf.connect(relay.endpoint)
        good.connect(relay.endpoint)
        sent, body = 0, bytes(16_000)
        while relay.statistics().counts.replies_no_room == 0:
            assert sent < 100_000
            for _ in range(100):
                deaf.raw.send(call_frame(sent, body))
                sent += 1
            while service.calls < sent:
                time.sleep(0.001)
        round_trip(good)
        report = relay.stop()
        assert report.clean
        assert report.seconds < STOP_S


def test_stopped_by_eight_threads_at_once(relay: Relay, echo: EchoService, connect: Connect) -> None:
    busy(relay, echo, connect)
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(relay.stop())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [report.clean for report in reports] == [True] * 8
    assert max(report.seconds for report in reports) < STOP_S
    assert relay.state == "ended"
    with pytest.raises(ClosedError, match="is ended"):
        relay.set_instances([])


def test_replies_that_arrived_before_the_stop_are_delivered(relay: Relay, echo: EchoService, connect: Connect) -> None:
    client = connect()
    round_trip(client, range(900))
    for number in range(900):
        client.raw.send(call_frame(number, payload(number)))
    wait_until(lambda: relay.statistics().counts.replies == 1800, "all are answered")
    relay.stop()
    expect_replies(client, set(range(900)), payload)


def test_a_context_that_ends_first_ends_the_relay(peers: SocketContext) -> None:
    context = SocketContext("victim")
    relay = Relay("echo", context)
    raw = context._zmq
    assert raw is not None
    thread = threading.Thread(target=raw.term, daemon=True)
    thread.start()
    wait_until(lambda: relay.state == "ended", "the relay ends")
    thread.join(5)
    assert not thread.is_alive()
    assert context.close().clean


def test_a_forked_child_may_stop_it_and_nothing_happens(relay: Relay, echo: EchoService, connect: Connect) -> None:
    client = connect()
    round_trip(client)
    busy(relay, echo, lambda: client)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            refused = 0
            for use in (relay.statistics, relay.connected, lambda: relay.set_instances([]), lambda: relay.endpoint):
                try:
                    use()
                except Exception as error:
                    refused += getattr(error, "code", "") == "forked"
            clean = relay.stop().clean and "forked" in repr(relay)
            left = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                    if os.path.islink(f"/proc/self/fd/{name}")]  # fmt: skip
            status = 0 if refused == 4 and clean and not any("socket:" in link for link in left) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    expect_replies(client, set(range(900)), payload)


def test_repr_and_statistics_tell_the_state(relay: Relay, echo: EchoService, connect: Connect) -> None:
    round_trip(connect())
    assert repr(relay) == f"<Relay 'echo' {relay.endpoint} serving, 1 instances>"
    wait_until(lambda: relay.statistics().clients == 1, "the hub has told of the client")
    told = relay.statistics()
    assert (told.state, told.clients, told.connected) == ("serving", 1, 1)
    assert [(each.endpoint, each.in_flight, each.leaving) for each in told.instances] == [(echo.endpoint, 0, False)]
    relay.stop()
    assert "ended" in repr(relay)
    assert relay.statistics().counts.replies == 10
