"""What the tests of relays share: a relay with each of the two loops, clients; and the check that nothing is left.

They import relay_peers.py, as the programs beside them do: by name, from this folder.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from datacenter.broker.relay import Relay, RelayOptions
from datacenter.sockets import OwnedSocket, SocketContext
from datacenter.sockets.ledger import Ledger, open_descriptors

sys.path.insert(0, str(Path(__file__).parent))

from relay_peers import Connect, wait_until


@pytest.fixture
def ledger_equals_proc() -> Iterator[None]:
    """At the end of the test every descriptor is explained, and every thread has ended."""
    ledger, before = Ledger.open(), open_descriptors()
    threads = threading.active_count()
    yield
    wait_until(lambda: not ledger.unexplained(before), f"ledger == /proc: {ledger.unexplained(before)}")
    wait_until(lambda: threading.active_count() <= threads, f"threads ended: {threading.enumerate()}")
    assert ledger.exact, ledger.reason
    ledger.close()


@pytest.fixture
def context(ledger_equals_proc: None) -> Iterator[SocketContext]:
    with SocketContext("relay") as made:
        yield made
        assert made.close().clean


@pytest.fixture
def peers(ledger_equals_proc: None) -> Iterator[SocketContext]:
    """The context of clients and services, apart from the relay's as in a process of their own."""
    with SocketContext("peers") as made:
        yield made
        assert made.close().clean


@pytest.fixture(params=[True, False], ids=["native", "python"])
def options(request: pytest.FixtureRequest) -> RelayOptions:
    return RelayOptions(native=request.param, drain_s=5.0)


@pytest.fixture
def relay(context: SocketContext, options: RelayOptions) -> Iterator[Relay]:
    with Relay("echo", context, options=options) as made:
        yield made
    assert made.state == "ended"


@pytest.fixture
def connect(peers: SocketContext, relay: Relay) -> Iterator[Connect]:
    made: list[OwnedSocket] = []

    def one(**named: Any) -> OwnedSocket:
        client = peers.socket(zmq.DEALER, owner=f"client {len(made)}", **named)
        client.connect(relay.endpoint)
        made.append(client)
        return client

    yield one
    for client in made:
        client.close()
