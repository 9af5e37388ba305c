"""One socket: its addresses, its state, and its end in every order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from datacenter.errors import AddressError, AddressInUseError, ClosedError, InsecureAddressError
from datacenter.sockets import MonitorEvent, OwnedSocket, SocketContext

Eventually = Callable[[Callable[[], object], str], None]


def round_trip(server: OwnedSocket, client: OwnedSocket) -> None:
    client.raw.send(b"ping")
    assert server.raw.poll(5000), "the request did not arrive"
    server.raw.send_multipart(server.raw.recv_multipart())
    assert client.raw.poll(5000), "the reply did not arrive"
    assert client.raw.recv() == b"ping"


def pair(context: SocketContext, endpoint: str = "tcp://127.0.0.1:*") -> tuple[OwnedSocket, OwnedSocket]:
    server = context.socket(zmq.ROUTER, owner="server")
    client = context.socket(zmq.DEALER, owner="client")
    client.connect(server.bind(endpoint))
    return server, client


def test_bind_tells_the_real_address_and_messages_flow(context: SocketContext, tmp_path: Path) -> None:
    for endpoint in ("tcp://127.0.0.1:*", "tcp://localhost:0", f"ipc://{tmp_path}/sock", "ipc://*", "inproc://here"):
        server, client = pair(context, endpoint)
        assert client.endpoint == server.endpoint
        assert not server.endpoint.endswith(("*", ":0"))
        round_trip(server, client)


def test_ipv6_loopback(context: SocketContext) -> None:
    round_trip(*pair(context, "tcp://[::1]:*"))


def test_repr_and_statistics_tell_the_state(context: SocketContext, eventually: Eventually) -> None:
    server, client = pair(context)
    assert context.socket(zmq.DEALER, owner="new").state == "idle"
    assert server.state == "listening"
    eventually(lambda: client.state == "connected" and client.statistics().events == 2, "the client is connected")
    assert repr(client) == "<OwnedSocket DEALER 'client' connected, 2 events>"
    server.close()
    eventually(lambda: client.state == "disconnected", "the client notices the end of its server")
    assert repr(server) == f"<OwnedSocket ROUTER 'server' closed, {server.statistics().events} events>"
    assert client.generation > server.generation


def test_addresses_that_others_can_reach_need_a_word(context: SocketContext) -> None:
    open_to_all = context.socket(zmq.ROUTER, owner="open")
    for call in (lambda: open_to_all.bind("tcp://*:*"), lambda: open_to_all.connect("tcp://192.0.2.1:7")):
        with pytest.raises(InsecureAddressError, match="no key protects it"):
            call()
    assert open_to_all.bind("tcp://*:*", insecure=True).startswith("tcp://0.0.0.0:")


def test_curve_keys_are_word_enough(context: SocketContext) -> None:
    keyed = context.socket(zmq.ROUTER, owner="keyed")
    keyed.raw.curve_publickey, keyed.raw.curve_secretkey = zmq.curve_keypair()
    keyed.raw.curve_server = True
    assert keyed.bind("tcp://*:*").startswith("tcp://0.0.0.0:")


def test_a_taken_address_says_what_to_type(context: SocketContext) -> None:
    first, second = context.socket(zmq.ROUTER, owner="first"), context.socket(zmq.ROUTER, owner="second")
    actual = first.bind("tcp://127.0.0.1:*")
    with pytest.raises(AddressInUseError, match="leakline holders"):
        second.bind(actual)
    second.bind("tcp://127.0.0.1:*")


def test_an_address_of_another_machine(context: SocketContext) -> None:
    with pytest.raises(AddressError, match="no address of this machine"):
        context.socket(zmq.ROUTER, owner="foreign").bind("tcp://192.0.2.1:7", insecure=True)


def test_unbind_and_disconnect(context: SocketContext, eventually: Eventually) -> None:
    server, client = pair(context)
    address = server.endpoint
    server.unbind()
    assert (server.state, server.endpoint) == ("idle", "")
    other = context.socket(zmq.ROUTER, owner="other")

    def bound() -> bool:  # the listener is closed by the I/O thread, a little later
        try:
            return bool(other.bind(address))
        except AddressInUseError:
            return False

    eventually(bound, "the port is free again")
    with pytest.raises(AddressError, match="does not listen at"):
        server.unbind(address)
    client.disconnect(address)
    assert client.state == "idle"
    with pytest.raises(AddressError, match="is not connected to"):
        client.disconnect(address)


def test_inproc_must_be_bound_first(context: SocketContext) -> None:
    client, server = context.socket(zmq.PAIR, owner="client"), context.socket(zmq.PAIR, owner="server")
    with pytest.raises(AddressError, match="Bind first"):
        client.connect("inproc://later")
    server.bind("inproc://later")
    client.connect("inproc://later")
    server.close()
    with pytest.raises(AddressError, match="Bind first"):
        context.socket(zmq.PAIR, owner="late").connect("inproc://later")


def test_closed_twice_and_from_threads_at_once(context: SocketContext) -> None:
    server, client = pair(context)
    round_trip(server, client)
    threads = [threading.Thread(target=owned.close) for owned in (server, client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert context.statistics().sockets == 0
    for use in (lambda: client.raw, lambda: client.bind("tcp://127.0.0.1:*"), lambda: client.connect("ipc://a")):
        with pytest.raises(ClosedError):
            use()


def test_closed_by_its_own_callback(context: SocketContext, eventually: Eventually) -> None:
    sockets: list[OwnedSocket] = []
    errors_before = context.statistics().hub.callback_errors

    def close(_: MonitorEvent) -> None:
        sockets[0].close()

    server = context.socket(zmq.ROUTER, owner="server")
    client = context.socket(zmq.DEALER, owner="client", on_event=close)
    sockets.append(client)
    client.connect(server.bind("tcp://127.0.0.1:*"))
    eventually(lambda: client.closed, "the callback closes its socket")
    assert context.statistics().hub.callback_errors == errors_before


def test_unmonitored(context: SocketContext) -> None:
    server = context.socket(zmq.ROUTER, owner="server", monitored=False)
    client = context.socket(zmq.DEALER, owner="client", monitored=False)
    client.connect(server.bind("tcp://127.0.0.1:*"))
    round_trip(server, client)
    assert context.statistics().hub.monitors == 0


@pytest.mark.parametrize("monitored", [True, False])
def test_collected_unclosed_warns_and_is_closed(eventually: Eventually, monitored: bool) -> None:
    with SocketContext("forgetful") as context, context.socket(zmq.ROUTER, owner="heir") as heir:
        address = bind_and_forget(context, monitored)

        def bound() -> bool:
            try:
                return bool(heir.bind(address))
            except AddressInUseError:
                return False

        eventually(bound, "the forgotten socket's port is free")
    assert context.close().clean


def bind_and_forget(context: SocketContext, monitored: bool) -> str:
    forgotten = [context.socket(zmq.ROUTER, owner="forgotten", monitored=monitored)]
    address = forgotten[0].bind("tcp://127.0.0.1:*")
    with pytest.warns(ResourceWarning, match="'forgotten' listening, .* was collected unclosed") as said:
        forgotten.clear()
    said.clear()  # a recorded warning keeps its source
    return address
