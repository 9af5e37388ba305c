"""What a peer could abort libzmq with, tried by raw peers against real sockets. Each case has its own process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from datacenter.sockets import peer_guard

Child = Callable[..., str]

PREPARE = """
    import os, resource, socket, struct, sys, time, zmq
    from datacenter.sockets import SocketContext, admission, descriptor_limit, peer_guard
    from datacenter.sockets.ledger import Ledger, open_descriptors
    ledger = Ledger.open()
    baseline = open_descriptors()

    def until(condition):
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, peer_guard.of_process().refused()
            time.sleep(0.002)

    def prop(name, value):
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value

    class Raw:
        def __init__(self, address, identity, version=3):
            if address.startswith("ipc://"):
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(address.removeprefix("ipc://"))
            else:
                host, _, port = address.removeprefix("tcp://").rpartition(":")
                self.socket = socket.create_connection((host, int(port)))
            self.socket.settimeout(5)
            try:
                self.shake_hands(identity, version)
            except BaseException:
                self.socket.close()
                raise

        def shake_hands(self, identity, version):
            body = b"\\x05READY" + prop(b"Socket-Type", b"DEALER") + prop(b"Identity", identity)
            self.socket.sendall(b"\\xff" + bytes(8) + b"\\x7f" + bytes([version, 0]) + b"NULL" + bytes(48))
            self.read(64)
            self.socket.sendall(b"\\x04" + bytes([len(body)]) + body)
            self.read(2)

        def read(self, count):
            data = b""
            while len(data) < count:
                part = self.socket.recv(count - len(data))
                if not part:
                    raise ConnectionResetError
                data += part
            return data

        def send(self, frame):
            self.socket.sendall(bytes([0, len(frame)]) + frame)

        def ended(self):
            try:
                while self.socket.recv(1000):
                    pass
            except ConnectionResetError:
                pass
            self.socket.close()
            return True
"""
END = """
    assert context.close().clean
    until(lambda: open_descriptors() == baseline and not ledger.unexplained(baseline))
"""

COLLIDE = """
    first = Raw(address, b"")
    first.send(b"who am I?")
    assert server.raw.poll(5000)
    number = struct.unpack(">I", server.raw.recv_multipart()[0][1:])[0]
    rivals = []
    for ahead in range(1, 6):
        try:
            rivals.append(Raw(address, b"\\0" + struct.pack(">I", (number + ahead) % 2**32)))
        except ConnectionResetError:
            pass
    until(lambda: peer_guard.of_process().refused() == 5)
    assert all(rival.ended() for rival in rivals)
    others = [Raw(address, b"") for _ in range(10)]
    for other in others:
        other.send(b"hello")
        assert server.raw.poll(5000)
        assert server.raw.recv_multipart()[1] == b"hello"
    for raw in (first, *rivals, *others):
        raw.socket.close()
"""


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:*", "ipc://*"])
def test_a_claimed_routing_id_cannot_collide_with_one_that_a_router_makes_up(child: Child, endpoint: str) -> None:
    """Without the guard: "Assertion failed: ok (src/socket_base.cpp:2113)"."""
    child(
        PREPARE
        + f"""
    context = SocketContext("guarded")
    assert peer_guard.of_process().reason == ""
    server = context.socket(zmq.ROUTER, owner="server")
    address = server.bind({endpoint!r})
    until(lambda: admission.of_process().statistics().listeners == 1)
"""
        + COLLIDE
        + END
    )


def test_the_same_peers_abort_a_router_that_nothing_guards(child: Child) -> None:
    """That this is libzmq as it is; when it is repaired, the guard can go."""
    child(
        PREPARE
        + """
    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    address = f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}"
    peers = [Raw(address, b"")]
    peers[0].send(b"who am I?")
    number = struct.unpack(">I", server.recv_multipart()[0][1:])[0]
    for claimed in (b"\\0" + struct.pack(">I", number + 1), b""):
        peers.append(Raw(address, claimed))
        peers[-1].send(b"hello")
        print(server.recv_multipart())
""",
        status=-6,
    )


# A peer that sends more than is taken, and goes. `blocked` is longer than a heartbeat of the server's.
FLOOD = """
    def flood_and_go(address, count):
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return
        raw = Raw(address, b"")
        raw.socket.settimeout(0.2)
        try:
            for number in range(count):
                if number % 10 == 5:
                    raw.socket.sendall(b"\\x04\\x07\\x04PING\\0\\0")
                raw.socket.sendall(bytes([0, 104]) + b"%04d" % number + bytes(100))
        except TimeoutError:
            pass
        if how == "reset":
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            raw.socket.shutdown(socket.SHUT_WR)
            end = time.monotonic() + 0.05
            try:  # what is closed with something unread is reset, too
                while time.monotonic() < end and raw.socket.recv(1000):
                    pass
            except (TimeoutError, ConnectionResetError):
                pass
        os._exit(0)
"""


@pytest.mark.parametrize(
    ("endpoint", "how", "count"),
    [
        ("tcp://127.0.0.1:*", "close", 50_000),
        ("tcp://127.0.0.1:*", "reset", 500),
        ("ipc://*", "close", 500),
        ("ipc://*", "reset", 50_000),
    ],
)
def test_the_end_of_a_connection_not_read_is_no_abort(child: Child, endpoint: str, how: str, count: int) -> None:
    """Without the guard: "Assertion failed: !_io_error (src/stream_engine_base.cpp:310)"."""
    child(
        PREPARE
        + f"    how, address, count = {how!r}, {endpoint!r}, {count}"
        + FLOOD
        + """
    context = SocketContext("slow")
    server = context.socket(zmq.ROUTER, owner="server", receive_high_water=10, heartbeat_ivl_ms=20)
    address = server.bind(address)
    until(lambda: admission.of_process().statistics().listeners == 1)
    assert peer_guard.of_process().reason == ""
    for turn in range(3):
        flood_and_go(address, count)
        time.sleep(0.1)  # five heartbeats in which nothing is taken
        seen = []
        while server.raw.poll(200):
            seen.append(int(server.raw.recv_multipart()[1][:4]))
        assert seen == list(range(len(seen))), seen
        assert how == "reset" or len(seen) >= min(count, 10), (turn, seen)
    begun = time.process_time()
    flood_and_go(address, count)
    time.sleep(0.5)
    assert time.process_time() - begun < 0.25  # it does not spin
    while server.raw.poll(200):
        server.raw.recv_multipart()
    beside = Raw(address, b"")
    beside.send(b"and still serves")
    assert server.raw.poll(5000)
    assert server.raw.recv_multipart()[1] == b"and still serves"
    beside.socket.close()
"""
        + END
    )


def test_the_same_end_aborts_a_router_that_nothing_guards(child: Child) -> None:
    child(
        PREPARE
        + "    how = 'reset'"
        + FLOOD
        + """
    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    server.rcvhwm, server.heartbeat_ivl = 10, 20
    address = f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}"
    for turn in range(30):
        flood_and_go(address, 500)
        time.sleep(0.1)
        while server.poll(200):
            server.recv_multipart()
""",
        status=-6,
    )


def test_guarding_goes_on_after_the_ledger_was_opened_anew(child: Child) -> None:
    """Each new ledger hooks libzmq's imports again, and takes the guard's place until the next bind."""
    child(
        PREPARE
        + """
    for life in range(3):
        before = peer_guard.of_process().refused()
        context = SocketContext("again")
        server = context.socket(zmq.ROUTER, owner="server")
        address = server.bind("tcp://127.0.0.1:*")
        try:
            Raw(address, b"mine").ended()
        except ConnectionResetError:
            pass
        until(lambda: peer_guard.of_process().refused() == before + 1)
        server.close()
        assert context.close().clean
        until(lambda: open_descriptors() == baseline and not ledger.unexplained(baseline))
        ledger.close()
        ledger = Ledger.open()
        assert ledger.exact
        baseline = open_descriptors()
    """
    )


def test_an_ipc_listener_without_a_descriptor_does_not_abort(child: Child) -> None:
    """libzmq's list of errors for it lacks EMFILE."""
    child(
        PREPARE
        + """
    context = SocketContext("ipc")
    server = context.socket(zmq.ROUTER, owner="server")
    address = server.bind("ipc://*")
    until(lambda: admission.of_process().statistics().listeners == 1)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor_limit.open_count() + 5, hard))
    for each in waiting:
        each.connect(address.removeprefix("ipc://"))
    until(lambda: not admission.of_process().statistics().accepting)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    until(lambda: admission.of_process().statistics().accepting)
    for each in waiting:
        each.close()
    peer = Raw(address, b"")
    peer.send(b"hello")
    assert server.raw.poll(5000)
    peer.socket.close()
    server.close()
"""
        + END
    )


ENDLESS = """
    with SocketContext("test") as context:
        router = context.socket(zmq.ROUTER, owner="router")
        endpoint = router.bind("tcp://127.0.0.1:0")
        good = context.socket(zmq.DEALER, owner="good")
        good.connect(endpoint)
        peer = Raw(endpoint, b"")
        part = b"\\x03" + struct.pack(">Q", 100_000) + bytes(100_000)
        sent = 0
        try:
            while sent < 1000:
                peer.socket.sendall(part)
                sent += 1
        except OSError:
            pass
        assert sent < 200, sent
        peer.ended()
        assert peer_guard.of_process().refused() == 1
        for size in (0, 255, 256, 70_000, 5_000_000):
            good.raw.send(bytes(size))
            assert router.raw.poll(10_000)
            assert len(router.raw.recv_multipart()[1]) == size
        good.raw.send_multipart([b"a"] * 60)  # whom it reaches says that it is malformed
        assert router.raw.poll(10_000)
        assert len(router.raw.recv_multipart()) == 61
"""


def test_a_message_of_endlessly_many_frames_ends_its_connection(child: Child) -> None:
    child(PREPARE + ENDLESS + END)


def test_without_its_functions_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "libpeerguard.so"
    subprocess.run(["cc", "-shared", "-o", str(other), "-x", "c", os.devnull], check=True)
    monkeypatch.setattr(peer_guard, "LIBRARY", other)
    guard = peer_guard.PeerGuard()
    assert "built from other sources" in guard.reason
    assert "make native" in guard.reason
    guard.watch(0)
    guard.begin_in_child()
    assert guard.refused() == 0
