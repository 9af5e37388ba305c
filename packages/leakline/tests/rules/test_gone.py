"""Descriptors of things that are gone, and connections of which the other end is silent or another process's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leakline.facts import Address, Closely, Descriptor, Relative, Role, Socket, TimeWait
from leakline.rules import diagnose


def tcp(number: int, role: Role = "outgoing", state: str = "ESTABLISHED", unanswered: int = 0) -> Descriptor:
    local, remote = Address("10.0.0.1", 8080), None if role == "listener" else Address("10.0.0.7", 5432)
    socket = Socket("tcp", role, state, local, remote, unanswered=unanswered)
    return Descriptor(number, "tcp", f"socket:[{number}]", number, socket=socket)


def pipes(numbers: range) -> list[Descriptor]:
    return [Descriptor(number, "pipe", f"pipe:[{number}]", number) for number in numbers]


def files(numbers: range, name: str = "/var/log/app.log (deleted)") -> list[Descriptor]:
    return [Descriptor(number, "file", name) for number in numbers]


def told(facts: Any) -> list[str]:
    return [f"{finding.severity} {finding.id}" for finding in diagnose(facts)]


CHILD = Relative(77, "program", "child", 12.0, True, (5,), True)


@pytest.mark.parametrize(
    ("descriptors", "relative", "findings"),
    [
        ([tcp(5)], CHILD, ["warning fork.shared"]),
        ([tcp(5, "accepted")], CHILD, ["warning fork.shared"]),
        ([tcp(5)], msgspec.structs.replace(CHILD, shared=(6,)), []),
        ([tcp(1)], msgspec.structs.replace(CHILD, shared=(1,)), []),
        (pipes(range(5, 6)), CHILD, []),
        ([tcp(5)], msgspec.structs.replace(CHILD, age_s=1.9), []),  # a server that forks for each connection
        ([tcp(5)], msgspec.structs.replace(CHILD, age_s=2.0), ["warning fork.shared"]),
        ([tcp(5)], msgspec.structs.replace(CHILD, age_s=1.9, relation="sibling"), []),
        ([tcp(5)], msgspec.structs.replace(CHILD, age_s=1.9, relation="parent"), ["warning fork.shared"]),
    ],
)
def test_a_tcp_connection_is_never_shared_on_purpose(
    scene: Any, descriptors: list[Descriptor], relative: Relative, findings: list[str]
) -> None:
    assert told(scene(descriptors, closely=Closely(relatives=(relative,)))) == findings


def test_relatives_that_could_not_be_looked_at_are_told_where_they_would_be_ruled_out(scene: Any) -> None:
    closely = Closely(relatives=(), incomplete=("what 2 relatives hold: permission denied",))
    (finding,) = diagnose(scene([], [tcp(number) for number in range(100, 300)], closely=closely))
    assert finding.ruled_out["also held by a parent, child or sibling"] == 0
    assert finding.ruled_out["not looked at"] == "what 2 relatives hold: permission denied"


@pytest.mark.parametrize(
    ("mine", "theirs", "same_program", "kept"),
    [
        ((5,), (), True, True),  # the parent accepts, the child does not
        ((5,), (5,), True, False),  # both do: workers
        ((), (), True, False),  # neither does at this moment: busy workers of a master
        ((5,), None, True, False),  # not known
        ((), (), False, True),  # it was started, and knows nothing of the number
        (None, (5,), False, False),
    ],
)
def test_a_port_is_kept_by_a_child_that_does_not_accept(
    scene: Any, mine: tuple[int, ...] | None, theirs: tuple[int, ...] | None, same_program: bool, kept: bool
) -> None:
    relative = msgspec.structs.replace(CHILD, waits_on=theirs, same_program=same_program)
    facts = scene([tcp(5, "listener", "LISTEN")], closely=Closely(relatives=(relative,), waits_on=mine))
    assert told(facts) == (["warning fork.port-kept"] if kept else [])
    parent = msgspec.structs.replace(relative, relation="parent")
    assert told(scene([tcp(5, "listener", "LISTEN")], closely=Closely(relatives=(parent,), waits_on=mine))) == []


def test_pipes_to_nobody_are_a_warning_and_a_leak_where_pipes_grow_by_them(scene: Any) -> None:
    dead = Closely(dead_pipes=frozenset(range(100, 300)))
    assert told(scene(pipes(range(100, 110)), closely=dead)) == ["warning pipe.dead-peer"]
    assert told(scene(pipes(range(100, 109)), closely=dead)) == []
    assert told(scene(pipes(range(10)), pipes(range(100, 300)), closely=dead)) == ["leak pipe.dead-peer"]
    few = Closely(dead_pipes=frozenset(range(100, 180)))
    assert told(scene(pipes(range(10)), pipes(range(100, 300)), closely=few)) == ["leak growth.pipe"]


def test_handles_of_ended_processes(scene: Any) -> None:
    handles = [Descriptor(number, "pidfd", "anon_inode:[pidfd]") for number in range(20)]
    assert told(scene(handles, closely=Closely(dead_pidfds=frozenset(range(10))))) == ["warning pidfd.dead-child"]
    assert told(scene(handles, closely=Closely(dead_pidfds=frozenset(range(9))))) == []


@pytest.mark.parametrize(
    ("size", "findings"), [(1 << 20, []), (64 << 20, ["note file.deleted"]), (2 << 30, ["warning file.deleted"])]
)
def test_deleted_files_are_told_by_the_space_that_they_keep(scene: Any, size: int, findings: list[str]) -> None:
    assert told(scene(files(range(5)), closely=Closely(deleted_bytes=size))) == findings
    assert told(scene(files(range(5), "/dev/shm/a (deleted)"), closely=Closely(deleted_bytes=size))) == []
    assert told(scene(files(range(5), "/var/log/app.log"), closely=Closely(deleted_bytes=size))) == []


def test_deleted_files_that_files_grow_by_are_a_leak(scene: Any) -> None:
    (finding,) = diagnose(scene([], files(range(200))))
    assert (finding.id, finding.severity) == ("file.deleted", "leak")
    assert finding.evidence["files"] == {"/var/log/app.log": 200}


@pytest.mark.parametrize(
    ("count", "unanswered", "findings"),
    [(1, 3, []), (1, 4, ["note tcp.half-open"]), (9, 6, ["note tcp.half-open"]), (10, 6, ["warning tcp.half-open"])],
)
def test_silent_peers(scene: Any, count: int, unanswered: int, findings: list[str]) -> None:
    assert told(scene([tcp(number, unanswered=unanswered) for number in range(3, 3 + count)])) == findings
    assert told(scene([tcp(3, state="SYN_SENT", unanswered=9)])) == []  # not connected yet


@pytest.mark.parametrize(
    ("listeners", "remotes", "findings"),
    [
        ({"port 8080": 499}, {}, []),
        ({"port 8080": 500}, {}, ["note tcp.time-wait"]),
        ({}, {"10.0.0.7:5432": 5000}, ["note tcp.time-wait"]),
        ({}, {"10.0.0.8:5432": 5000}, []),  # somebody else's
        ({}, {"10.0.0.7:5432": 23000}, ["warning tcp.time-wait"]),
    ],
)
def test_time_wait_is_told_apart(
    scene: Any, listeners: dict[str, int], remotes: dict[str, int], findings: list[str]
) -> None:
    seen = TimeWait(30000, listeners, remotes, ports=28232, come_and_go=True)
    assert told(scene([tcp(3)], closely=Closely(time_wait=seen))) == findings


@pytest.mark.parametrize(("before", "after"), [([tcp(3)], [tcp(3)]), ([], [tcp(3)]), ([tcp(3)], [])])
def test_time_waits_are_of_whoever_closes_connections(
    scene: Any, before: list[Descriptor], after: list[Descriptor]
) -> None:
    seen = TimeWait(30000, {}, {"10.0.0.7:5432": 5000}, ports=28232)
    assert told(scene(before, after, closely=Closely(time_wait=seen))) == []  # it keeps one, made or left one
    seen = msgspec.structs.replace(seen, come_and_go=True)
    assert told(scene(before, after, closely=Closely(time_wait=seen))) == ["note tcp.time-wait"]
