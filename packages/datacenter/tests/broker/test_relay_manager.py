"""The relay manager: one relay a name, whoever asks at once, and no trace of it afterwards."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from relay_peers import wait_until

from datacenter.broker.relay import Relay
from datacenter.broker.relay_manager import RelayManager, RelayManagerOptions
from datacenter.errors import ClosedError, NotServableError, RegistryFullError, WrongTypeError
from datacenter.sockets import SocketContext
from datacenter.sockets.ledger import Ledger, open_descriptors


@pytest.fixture
def context() -> Iterator[SocketContext]:
    ledger, before, threads = Ledger.open(), open_descriptors(), threading.active_count()
    with SocketContext("relays") as made:
        yield made
        assert made.close().clean
    wait_until(lambda: not ledger.unexplained(before), f"ledger == /proc: {ledger.unexplained(before)}")
    wait_until(lambda: threading.active_count() <= threads, f"threads ended: {threading.enumerate()}")
    ledger.close()


@pytest.fixture
def manager(context: SocketContext) -> Iterator[RelayManager]:
    made = RelayManager(context, options=RelayManagerOptions(max_relays=20, relay_idle_s=30.0))
    yield made
    assert made.close().clean


def at_once(count: int, work: Callable[[int], object]) -> list[object]:
    """What `work(0..)` returned or raised in so many threads that start together."""
    found: list[object] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            found[number] = work(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return found


def test_sixteen_threads_get_the_same_one(manager: RelayManager) -> None:
    for name in "abcdef":
        found = at_once(16, functools.partial(lambda name, _: manager.get_or_create(name), name))
        assert isinstance(found[0], Relay)
        assert found[0].state == "serving", "never a half-made one"
        assert {id(each) for each in found} == {id(found[0])}
        assert manager.get(name) is found[0]
    assert manager.statistics().made == 6


def test_another_type_is_a_typed_conflict(manager: RelayManager) -> None:
    found = at_once(16, lambda number: manager.get_or_create("a", "rpc" if number % 2 else "topic"))
    relays = {id(each) for each in found if isinstance(each, Relay)}
    conflicts = [each for each in found if isinstance(each, WrongTypeError)]
    assert (len(relays), len(conflicts)) == (1, 8)
    manager.remove("a")
    manager.get_or_create("a", "pipeline")


def test_an_error_is_everybodys_and_leaves_no_trace(context: SocketContext) -> None:
    manager = RelayManager(context, host="tcp://192.0.2.1", insecure=True)
    found = at_once(16, lambda _: manager.get_or_create("a"))
    assert {getattr(each, "code", each) for each in found} == {"bad-address"}
    assert len({id(each) for each in found}) == 16, "each has a traceback of its own"
    assert manager.get("a") is None
    assert repr(manager) == "<RelayManager open, 0 relays, 0 being made, 0 ending>"
    assert manager.close().clean


def test_limits_and_names(manager: RelayManager) -> None:
    for number in range(20):
        manager.get_or_create(f"s{number}")
    with pytest.raises(RegistryFullError, match="20 relays"):
        manager.get_or_create("more")
    with pytest.raises(NotServableError):
        manager.get_or_create("no name")
    assert repr(manager) == "<RelayManager open, 20 relays, 0 being made, 0 ending>"


def test_remove_is_for_the_one_that_is_meant(manager: RelayManager) -> None:
    first = manager.get_or_create("a")
    assert manager.remove("a", first).clean
    second = manager.get_or_create("a")
    assert second is not first
    manager.remove("a", first)
    assert second.state == "serving"
    assert all(report.clean for report in at_once(8, lambda _: manager.remove("a")))  # type: ignore[attr-defined]
    assert (second.state, manager.get("a")) == ("ended", None)
    assert (manager.statistics().made, manager.statistics().ended) == (2, 2)


def test_a_successor_never_meets_its_predecessor(manager: RelayManager, context: SocketContext) -> None:
    """A name that is ended and made by all at once: its relays follow one another, and none is lost sight of."""
    alive: list[int] = []

    def churn(_: int) -> None:
        for _ in range(25):
            relay = manager.get_or_create("a")
            alive.append(sum(thread.name == "datacenter-relay-a" for thread in threading.enumerate()))
            manager.remove("a", relay)

    assert at_once(8, churn) == [None] * 8
    assert max(alive) == 1
    assert manager.statistics().made == manager.statistics().ended
    assert context.statistics().sockets == 0


def close_or_make(manager: RelayManager, number: int) -> object:
    return manager.close() if number == 8 else manager.get_or_create(f"s{number}")


def has_ended(relay: Relay) -> bool:
    return relay.state == "ended"


def test_closed_while_relays_are_being_made(context: SocketContext) -> None:
    for _ in range(20):
        manager = RelayManager(context)
        found = at_once(9, functools.partial(close_or_make, manager))
        assert all(isinstance(each, (Relay, ClosedError)) for each in found[:8]), found
        assert manager.close().clean
        for relay in found:
            if isinstance(relay, Relay):
                wait_until(functools.partial(has_ended, relay), "all have ended")
        assert context.statistics().sockets == 0


def test_a_relay_that_nobody_needs_ends(manager: RelayManager, context: SocketContext) -> None:
    idle, leased, used = (manager.get_or_create(name) for name in ("idle", "leased", "used"))
    now = time.monotonic()
    with context.socket(zmq.ROUTER, owner="instance") as instance:
        used.set_instances([instance.bind("tcp://127.0.0.1:*")])
        wait_until(lambda: used.connected() == 1, "the instance is connected")
        assert manager.tick(now, {"leased": 1}) == []
        assert manager.tick(now + 60, {"leased": 1}) == ["idle"]
    assert (idle.state, leased.state, used.state) == ("ended", "serving", "serving")
    wait_until(lambda: used.connected() == 0, "the instance is gone")
    assert manager.tick(now + 90, {}) == []
    assert manager.tick(now + 121, {}) == ["leased", "used"]


def test_disagreement_of_lease_and_connection_is_logged(
    manager: RelayManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.get_or_create("a")
    now = time.monotonic()
    for later in (0, 11, 12):
        manager.tick(now + later, {"a": 1})
    assert caplog.text.count("relay of a: 1 live leases and no connected instance") == 1


def test_the_fallback_is_the_same_to_its_callers(context: SocketContext) -> None:
    options = RelayManagerOptions()
    options = dataclasses.replace(options, relay=dataclasses.replace(options.relay, native=False))
    manager = RelayManager(context, options=options)
    relays = [manager.get_or_create(f"s{number}") for number in range(5)]
    assert manager.close().clean
    assert {relay.state for relay in relays} == {"ended"}


def test_sixteen_threads_make_and_end_fifty_under_traffic() -> None:
    program = Path(__file__).parent / "hold_relays.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), "4"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.stdout.endswith("holds\n")
