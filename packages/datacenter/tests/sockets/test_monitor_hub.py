"""The hub drains every monitor, whatever the peers do, and libzmq's I/O thread never waits."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from datacenter.sockets import MonitorEvent, OwnedSocket, SocketContext
from datacenter.sockets.hub import LAG_WARN_EVENTS

Eventually = Callable[[Callable[[], object], str], None]

#: as fast as libzmq can: what a monitor with an ordinary reader survives for 0.8 s
RESTLESS: dict[str, Any] = {"reconnect_min_ms": 1, "reconnect_max_ms": 0}


def dead_port() -> str:
    """An address at which nobody listens: below the ephemeral ports, where a client could connect to itself."""
    with socket.socket() as probe:
        for port in range(20000, 30000):
            if probe.connect_ex(("127.0.0.1", port)):
                return f"tcp://127.0.0.1:{port}"
    raise AssertionError("no free port")


def io_threads_that_wait_in_send() -> list[str]:
    """libzmq's own threads outside epoll_wait and not running: one that is blocked in send waits in poll()."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            name, channel = (task / "comm").read_text().strip(), (task / "wchan").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.startswith("ZMQbg") and "poll" in channel and "epoll" not in channel and "ep_poll" not in channel:
            found.append(f"{name}: {channel}")
    return found


@contextmanager
def flapping_server() -> Iterator[str]:
    """Accepts and closes at once, as a proxy does whose service is away."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.settimeout(0.05)
    stop = threading.Event()

    def accept() -> None:
        while not stop.is_set():
            try:
                listener.accept()[0].close()
            except TimeoutError:
                continue

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        listener.close()


class Echo:
    """A server, a client, and round trips that fail when the I/O thread stands still."""

    def __init__(self, context: SocketContext) -> None:
        self.server = context.socket(zmq.ROUTER, owner="echo server")
        self.client = context.socket(zmq.DEALER, owner="echo client")
        self.client.connect(self.server.bind("tcp://127.0.0.1:*"))

    def round_trip(self) -> None:
        self.client.raw.send(b"ping")
        assert self.server.raw.poll(5000), "the I/O thread stands still"
        self.server.raw.send_multipart(self.server.raw.recv_multipart())
        assert self.client.raw.poll(5000), "the I/O thread stands still"
        self.client.raw.recv()


@pytest.mark.parametrize("debug", [False, True])
def test_a_dead_peer_for_seconds_and_a_socket_for_each_query(debug: bool) -> None:
    """Incident A: 1 ms reconnects to a dead port, and meanwhile 300 sockets that come and go."""
    seconds = 2.5
    with SocketContext("incident A", debug=debug) as context:
        echo = Echo(context)
        dead = context.socket(zmq.DEALER, owner="dead", **RESTLESS)
        dead.connect(dead_port())
        echo.round_trip()
        began, counts, waiting = time.monotonic(), [], []
        for n in range(300):
            with context.socket(zmq.DEALER, owner="query") as query:
                query.connect(echo.server.endpoint)
                query.raw.send(b"which port?")
                assert echo.server.raw.poll(5000), "the I/O thread stands still"
                echo.server.raw.recv_multipart()
            counts.append(os.stat("/proc/self/fd").st_size)
            waiting += io_threads_that_wait_in_send()
            while time.monotonic() < began + seconds * n / 300:
                echo.round_trip()
        # The reaper is a few sockets behind at any moment; a leak of one a query would be 250 by now.
        assert min(counts[250:]) <= max(counts[:50]), "descriptors grow"
        assert not waiting
        assert dead.state == "connecting"
        assert (dead.statistics().events > 2000) == debug, "retries are seen only when debugging"
        assert context.close().clean


def test_the_check_for_blocked_threads_sees_one(eventually: Eventually) -> None:
    """The control: a monitor that nobody drains, as in incident A, is caught. Terminating ends the block."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    naive, reader = context.socket(zmq.DEALER), context.socket(zmq.PAIR)
    naive.setsockopt(zmq.LINGER, 0)
    naive.setsockopt(zmq.RECONNECT_IVL, 1)
    reader.connect("inproc://undrained")
    naive.monitor("inproc://undrained", zmq.EVENT_ALL & ~zmq.EVENT_MONITOR_STOPPED)
    naive.connect(dead_port())
    eventually(io_threads_that_wait_in_send, "the I/O thread is blocked by the full monitor")
    naive.close()
    reader.close()
    context.term()


def test_a_flapping_peer(context: SocketContext) -> None:
    """Three events an attempt pass every mask: only draining helps (without it, blocked after 1.2 s)."""
    echo = Echo(context)
    errors_before = context.statistics().hub.callback_errors
    with flapping_server() as address:
        client = context.socket(zmq.DEALER, owner="flapped", **RESTLESS)
        client.connect(address)
        end = time.monotonic() + 20
        while client.statistics().events < 2500:
            echo.round_trip()
            assert not io_threads_that_wait_in_send()
            assert time.monotonic() < end, f"only {client.statistics().events} events"
        client.close()
    assert context.statistics().hub.callback_errors == errors_before


def test_twenty_thousand_events_wait_while_a_callback_is_stuck(
    context: SocketContext, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader takes what comes while the hub is away; the I/O thread goes on; the lag is told."""
    echo = Echo(context)
    stuck, seen = threading.Event(), []

    def wait(event: MonitorEvent) -> None:
        seen.append(event)
        stuck.wait(30)

    crowd = context.socket(zmq.ROUTER, owner="crowd", on_event=wait)
    address = crowd.bind("tcp://127.0.0.1:*")
    host, port = address.removeprefix("tcp://").split(":")
    eventually(lambda: seen, "the first callback, which gets stuck")
    began, stuck_s = time.monotonic(), 0.0
    try:
        for n in range(6700):  # accepted, failed and disconnected: three events each
            with socket.create_connection((host, int(port))) as peer:
                # Its greeting says that it was accepted: the kernel drops what overflows a listener's backlog.
                assert peer.recv(10)
            if n % 1000 == 0:
                echo.round_trip()
        echo.round_trip()
        assert not io_threads_that_wait_in_send()
        assert len(seen) == 1
        stuck_s = time.monotonic() - began
    finally:
        stuck.set()
    with caplog.at_level(logging.WARNING, "datacenter.sockets"):
        eventually(lambda: len(seen) > 20_000, f"all events arrive ({len(seen)})")
    assert context.statistics().hub.longest_queue >= LAG_WARN_EVENTS
    assert context.statistics().hub.longest_turn_s >= stuck_s
    names = Counter(event.name for event in seen)
    eventually(lambda: Counter(event.name for event in seen)["DISCONNECTED"] == 6700, f"none is lost: {names}")


def test_closing_with_a_full_reader_does_not_freeze(eventually: Eventually) -> None:
    """disable_monitor() under the GIL, 10 000 events unread, the hub stuck: quick, because nothing is ever full."""
    release, entered = threading.Event(), threading.Event()

    def wait(_: MonitorEvent) -> None:
        entered.set()
        release.wait(30)

    with SocketContext("frozen") as context:
        crowd = context.socket(zmq.ROUTER, owner="crowd", on_event=wait)
        host, port = crowd.bind("tcp://127.0.0.1:*").removeprefix("tcp://").split(":")
        eventually(entered.is_set, "the hub is stuck in a callback")
        for _ in range(3500):
            socket.create_connection((host, int(port))).close()
        began = time.monotonic()
        crowd.close()
        report = context.close(1.0)
        assert time.monotonic() - began < 1.5
        assert report.still_open == ("monitor hub: a callback has not returned",)
        release.set()
    eventually(lambda: not any(t.name == "datacenter-hub" for t in threading.enumerate()), "the hub ends after all")


def test_a_callback_that_raises_is_logged_and_counted(
    context: SocketContext, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: MonitorEvent) -> None:
        raise SystemExit(event.name)

    before = context.statistics().hub.callback_errors
    server = context.socket(zmq.ROUTER, owner="server", on_event=fail)
    client = context.socket(zmq.DEALER, owner="client")
    client.connect(server.bind("tcp://127.0.0.1:*"))
    eventually(lambda: client.state == "connected", "the hub goes on")
    eventually(lambda: context.statistics().hub.callback_errors - before >= 3, "all errors are counted")
    assert "the callback of server raised at LISTENING; the hub goes on" in caplog.text


def test_events_carry_owner_generation_and_endpoint(context: SocketContext, eventually: Eventually) -> None:
    seen: list[MonitorEvent] = []
    server = context.socket(zmq.ROUTER, owner="server", on_event=seen.append)
    client = context.socket(zmq.DEALER, owner="client", on_event=seen.append)
    client.connect(server.bind("tcp://127.0.0.1:*"))
    eventually(lambda: sum(event.name == "HANDSHAKE_SUCCEEDED" for event in seen) == 2, "both hands are shaken")
    by_owner = {owned.owner: owned for owned in (server, client)}
    assert {event.name for event in seen if event.owner == "server"} == {"LISTENING", "ACCEPTED", "HANDSHAKE_SUCCEEDED"}
    assert {event.name for event in seen if event.owner == "client"} == {"CONNECTED", "HANDSHAKE_SUCCEEDED"}
    for event in seen:
        assert event.generation == by_owner[event.owner].generation
        assert event.endpoint == server.endpoint


def test_connections_have_an_owner_in_the_ledger(context: SocketContext, eventually: Eventually) -> None:
    before = {entry.number for entry in context._ledger.entries()}  # of fixtures that outlive a test
    echo = Echo(context)
    echo.round_trip()
    ledger = context._ledger

    def owners() -> set[str]:
        return {entry.owner for entry in ledger.entries() if entry.kind == "tcp" and entry.number not in before}

    expected = {f"{owned.owner} #{owned.generation}" for owned in (echo.server, echo.client)}
    eventually(lambda: owners() == expected, lambda: f"{expected} own every TCP descriptor of {ledger.entries()}")
    assert "" not in {entry.owner for entry in ledger.entries()}


def test_debug_log_folds_repeats(eventually: Eventually, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "datacenter.sockets"), SocketContext("debug", debug=True) as context:
        dead = context.socket(zmq.DEALER, owner="finder", **RESTLESS)
        dead.connect(dead_port())
        eventually(lambda: "CONNECT_RETRIED ×" in caplog.text, "a folded line")
    lines = [record.message for record in caplog.records if record.message.startswith("CONNECT_RETRIED")]
    assert "[finder]" in lines[0]
    assert "in 1 s (after 1 ms) tcp://127.0.0.1:" in lines[1]
    assert len(lines) < 8


def test_the_hub_ends_with_its_context_and_starts_again(eventually: Eventually) -> None:
    for _ in range(20):
        with SocketContext("again") as context:
            client = context.socket(zmq.DEALER, owner="client")
            assert context.statistics().hub.running
            assert not client.closed
        assert not context._hub.statistics().running


def test_sockets_made_and_closed_by_eight_threads(context: SocketContext) -> None:
    echo, errors = Echo(context), []

    def churn() -> None:
        try:
            for _ in range(60):
                with context.socket(zmq.DEALER, owner="churn") as owned:
                    owned.connect(echo.server.endpoint)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=churn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    echo.round_trip()
    assert context.statistics().sockets == 2


def test_a_context_terminated_behind_our_back(eventually: Eventually) -> None:
    """Somebody calls term() on the raw context: the hub lets go of its readers instead of spinning on them."""
    context = SocketContext("victim")
    owned: OwnedSocket = context.socket(zmq.DEALER, owner="client")
    raw = owned.raw.context
    thread = threading.Thread(target=raw.term)
    thread.start()
    eventually(lambda: context.statistics().hub.monitors == 0, "the hub lets go of the monitor")
    owned.close()
    thread.join(5)
    assert not thread.is_alive()
    assert context.close().clean
