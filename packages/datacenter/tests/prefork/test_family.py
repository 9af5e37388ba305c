"""A family of real processes: what each holds, what happens when any of them is killed, stops, or is told to end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from itertools import combinations

import pytest

from datacenter import Client, DatacenterError
from datacenter.sockets.ledger_compare import compare_with_proc
from datacenter.testing import Launcher, RunningBroker, RunningService, family_of, sockets_of
from families import WORKERS, gone, pid_of, registered, to_broker, until
from leakline import proc


@pytest.fixture
def client(broker: RunningBroker) -> Iterator[Client]:
    with Client(broker.address) as made:
        yield made


def test_each_process_holds_what_is_its_own(family: RunningService, broker: RunningBroker, client: Client) -> None:
    for _ in range(5):
        assert client.call("shop.pid") in [pid_of(family, name) for name in WORKERS]
    pids = {relative.name: relative.pid for relative in family_of(family.pid)}
    assert sorted(pids) == ["fork-server", "watcher", *WORKERS]
    assert {name: to_broker(pid, broker) for name, pid in pids.items()} == {
        "fork-server": 0, "watcher": 1, "worker-1": 0, "worker-2": 0,
    }  # fmt: skip
    assert to_broker(family.pid, broker) == 0
    for one, other in combinations([family.pid, *pids.values()], 2):
        assert not sockets_of(one) & sockets_of(other)
    kinds = proc.kinds(pids["fork-server"])
    standard = {"pipe", "file", "device"}
    assert {kind: count for kind, count in kinds.items() if kind not in standard} == {"unix": 1, "pidfd": 3}
    for pid in (family.pid, pids["watcher"], *(pids[name] for name in WORKERS)):
        found = compare_with_proc(pid)
        assert found.exact, found.reason
        # Debian's libffi keeps its own file open, for the callbacks of ctypes.
        known = {number: target for number, target in found.unowned if number <= 2 or "/libffi.so" in target}
        assert found.unexplained(known) == ()


def test_the_sum_of_what_workers_count_keeps_what_the_dead_counted(
    family: RunningService, broker: RunningBroker, launch: Launcher, client: Client
) -> None:
    def stats(*words: str) -> str:
        command = launch.command("stats", "shop", "--broker", broker.address, *words)
        assert command.wait(30) == 0, command.errors
        launch.release(command)
        return "\n".join(line for _, line in command.lines)

    answered: list[int] = []
    until(lambda: answered.append(client.call("shop.pid")) or len(set(answered)) == 2, "each worker has answered")
    told = json.loads(stats("--json"))
    assert told["total"]["calls"] == len(answered)
    assert sorted(instance["name"] for instance in told["instances"]) == [*WORKERS]
    first = pid_of(family, "worker-1")
    os.kill(first, signal.SIGTERM)  # in order, so that it says what it has counted to the last
    until(lambda: gone([first]), "it has ended")
    until(lambda: len(registered(broker, launch) - {first}) == 2, "another one is registered")
    told = json.loads(stats("--json"))
    assert told["total"]["calls"] == len(answered)
    (group,) = told["families"]
    assert (group["supervisor"], group["restarts"], group["session"]) == (family.pid, 1, "connected")
    lines = stats().splitlines()
    assert [line.split()[0] for line in lines] == ["WHO", *WORKERS, "ended", "sum", "supervisor"]
    assert lines[-2].split()[2] == f"{len(answered)}"


def test_who_is_killed_is_replaced_and_the_others_live_on(
    family: RunningService, broker: RunningBroker, launch: Launcher, client: Client
) -> None:
    before = {relative.name: relative.pid for relative in family_of(family.pid)}
    for name in ("watcher", "fork-server", "worker-1"):
        os.kill(before[name], signal.SIGKILL)
        until(lambda name=name: pid_of(family, name) != before[name], f"another {name}")  # type: ignore[misc]
        assert isinstance(client.call("shop.pid"), int)
    after = {name: pid_of(family, name) for name in before}
    assert after["worker-2"] == before["worker-2"]
    until(lambda: registered(broker, launch) == {after[name] for name in WORKERS}, "both are registered")
    assert {name: to_broker(pid, broker) for name, pid in after.items()} == {
        "fork-server": 0, "watcher": 1, "worker-1": 0, "worker-2": 0,
    }  # fmt: skip
    assert "worker-1" in family.errors
    assert "was killed by SIGKILL" in family.errors


def test_a_family_ends_in_order(family: RunningService, broker: RunningBroker, launch: Launcher) -> None:
    pids = [relative.pid for relative in family_of(family.pid)]
    with Client(broker.address) as client:
        waiting = [client.submit("shop.block", 0.5) for _ in range(4)]
        until(lambda: client.statistics()["in_flight"] == 4, "the calls are under way")
        assert isinstance(client.call("shop.pid"), int)
        family.signal(signal.SIGTERM)
        assert {future.result(10) for future in waiting} <= set(pids)
    assert family.wait() == 0
    until(lambda: gone(pids), "all have ended")
    assert registered(broker, launch) == set()
    assert "prefork" not in family.errors  # nothing about processes; a busy machine may be told of
    assert "Traceback" not in family.errors


def test_an_interpreter_that_is_stuck_does_not_keep_a_family_from_ending(
    family: RunningService, broker: RunningBroker
) -> None:
    with Client(broker.address) as client:
        call = client.submit("shop.hold_the_interpreter", deadline_s=5)
        until(lambda: client.statistics()["in_flight"] == 1, "the call is under way")
        family.signal(signal.SIGTERM)
        assert family.wait(30) == 0
        assert "did not end in time; it is killed" in family.errors
        with pytest.raises(DatacenterError):
            call.result(15)


@pytest.mark.parametrize("stuck", [False, True])
def test_a_family_ends_with_its_supervisor_by_sigkill(
    family: RunningService, broker: RunningBroker, launch: Launcher, stuck: bool
) -> None:
    pids = [relative.pid for relative in family_of(family.pid)]
    with Client(broker.address) as client:
        call = client.submit("shop.hold_the_interpreter" if stuck else "shop.pid")
        if stuck:
            until(lambda: client.statistics()["in_flight"] == 1, "the call is under way")
        else:
            call.result(10)
        family.kill()
        until(lambda: gone(pids), "all have ended")
        if stuck:
            with pytest.raises(DatacenterError):
                call.result(15)
    assert registered(broker, launch) == set()
