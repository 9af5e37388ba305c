"""A context: its limits, and its end, bounded in every state."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest
import zmq

from datacenter.errors import ClosedError, SocketLimitError
from datacenter.sockets import MonitorEvent, OwnedSocket, SocketContext

Eventually = Callable[[Callable[[], object], str], None]
Child = Callable[..., str]

PREPARE = """
    import os, threading, time, zmq
    from datacenter.sockets import SocketContext
    context = SocketContext("child")
    server = context.socket(zmq.ROUTER, owner="server")
    client = context.socket(zmq.DEALER, owner="client", reconnect_min_ms=1, reconnect_max_ms=0)
    client.connect(server.bind("tcp://127.0.0.1:*"))
    client.raw.send(b"ping")
    assert server.raw.poll(5000)
"""


def test_nothing_is_opened_before_the_first_socket() -> None:
    with SocketContext("idle") as context:
        assert context.statistics().max_sockets == 0
    assert context.close().clean


@pytest.mark.parametrize("order", list(itertools.permutations(["context", "server", "client"])))
def test_closed_in_every_order(order: tuple[str, ...]) -> None:
    context = SocketContext("order")
    server, client = context.socket(zmq.ROUTER, owner="server"), context.socket(zmq.DEALER, owner="client")
    client.connect(server.bind("tcp://127.0.0.1:*"))
    client.raw.send(b"unread")
    things: dict[str, SocketContext | OwnedSocket] = {"context": context, "server": server, "client": client}
    for name in order:
        things[name].close()
    for name in order:
        things[name].close()
    report = context.close()
    assert report.clean
    assert report.seconds < 1.0
    with pytest.raises(ClosedError):
        context.socket(zmq.DEALER, owner="late")


def test_closed_in_another_thread() -> None:
    context = SocketContext("elsewhere")
    client = context.socket(zmq.DEALER, owner="client")
    client.connect("tcp://127.0.0.1:1")
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(context.close(5.0))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [report.clean for report in reports] == [True] * 4
    assert client.closed


def test_closed_from_a_callback(eventually: Eventually) -> None:
    context = SocketContext("callback")
    reports = []

    def close(event: MonitorEvent) -> None:
        if event.name == "CONNECTED":
            reports.append(context.close())

    server = context.socket(zmq.ROUTER, owner="server")
    client = context.socket(zmq.DEALER, owner="client", on_event=close)
    client.connect(server.bind("tcp://127.0.0.1:*"))
    eventually(lambda: reports, "the callback closes the context")
    assert reports[0].clean


def test_what_does_not_end_in_time_is_named_and_left_alone(eventually: Eventually) -> None:
    context = SocketContext("stuck")
    owned = context.socket(zmq.DEALER, owner="client")
    # A socket that another part of the program made behind our back: term() waits for it.
    foreign = owned.raw.context.socket(zmq.PAIR)
    report = context.close(0.1)
    assert report.still_open == ("context stuck",)
    assert 0.1 <= report.seconds < 1.0
    foreign.close()
    eventually(lambda: not any(thread.name == "datacenter-term" for thread in threading.enumerate()), "term() ends")


@pytest.mark.parametrize("most", range(2, 14))
def test_no_slot_left_is_told_from_no_descriptor_left(most: int) -> None:
    """Every slot in turn is the last: the socket's, its reader's, its hidden monitor's."""
    with SocketContext("small", max_sockets=most) as context:
        made: list[OwnedSocket] = []
        with pytest.raises(SocketLimitError, match=f"all {most} sockets of libzmq are in use"):
            made.extend(context.socket(zmq.DEALER, owner=f"client {n}") for n in range(most + 1))
        assert len(made) <= most // 3
        for owned in made:
            owned.close()
        report = context.close(5.0)
    assert report.clean


def test_slots_come_back(eventually: Eventually) -> None:
    with SocketContext("small", max_sockets=6) as context:
        for _ in range(50):

            def made() -> bool:  # the reaper frees slots a little later
                try:
                    context.socket(zmq.DEALER, owner="client").close()
                except SocketLimitError:
                    return False
                return True

            eventually(made, "a slot is free again")


def test_max_sockets_follows_the_descriptor_limit(context: SocketContext) -> None:
    raw = context.socket(zmq.DEALER, owner="any").raw
    assert raw.context.get(zmq.MAX_SOCKETS) == context.statistics().max_sockets > 1023
    assert raw.context.get(zmq.BLOCKY) == 0


def test_two_contexts_share_one_hub() -> None:
    with SocketContext("one") as one, SocketContext("two") as two:
        kept = one.socket(zmq.DEALER, owner="a"), two.socket(zmq.DEALER, owner="b")
        assert one.statistics().hub.monitors == 2
        assert sum(thread.name == "datacenter-hub" for thread in threading.enumerate()) == 1
        assert one.close().clean
        assert two.statistics().hub.running
        assert [owned.closed for owned in kept] == [True, False]
    assert not any(thread.name == "datacenter-hub" for thread in threading.enumerate())


def test_collected_unclosed_warns_and_ends(child: Child) -> None:
    child(
        PREPARE
        + """
    import gc, warnings
    from datacenter.sockets.ledger import open_descriptors
    said = []
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *rest, **named: said.append(str(message))
    del client, server, context
    gc.collect()
    end = time.monotonic() + 10
    while any(link.startswith("anon_inode") for link in open_descriptors().values()):
        assert time.monotonic() < end, "libzmq's descriptors are still open"
        time.sleep(0.002)
    assert sorted(line.split("'")[1] for line in said) == ["child", "client", "server"], said
    assert all("collected unclosed" in line for line in said)
    """
    )


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "context.close()",
        "del client, server, context",
        "raise SystemExit(0)",
        "server.close(); time.sleep(0.05)",
        "threading.Thread(target=server.raw.recv, daemon=True).start(); client.close(); time.sleep(0.05)",
        "context._closed_by_nobody = client",
    ],
)
def test_leaving_at_any_moment_is_clean_and_quick(child: Child, ending: str) -> None:
    warn = "import warnings; warnings.simplefilter('ignore')\n    "
    child(PREPARE + "    " + warn + ending)


def test_leaving_while_a_thread_is_inside_a_socket(child: Child) -> None:
    """At exit a daemon thread still waits in recv: it is woken, and closes its own."""
    child(
        PREPARE
        + """
    def serve():
        try:
            while True:
                server.raw.recv()
        except zmq.ContextTerminated:
            server.close()
    made_here = threading.Thread(target=serve, daemon=True)
    server.home = made_here
    made_here.start()
    """
    )
