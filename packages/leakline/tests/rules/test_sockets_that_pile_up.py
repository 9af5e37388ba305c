"""Sockets in good order that are never closed: accepted, outgoing and listening ones; what was ruled out; and the
difference to the kernel's tables.
"""

from __future__ import annotations

from typing import Any

import pytest

from leakline.facts import Address, Descriptor, Role, Socket
from leakline.rules import diagnose


def tcp(
    number: int, role: Role, state: str = "ESTABLISHED", port: int = 5432, service: str | None = None
) -> Descriptor:
    local = Address("127.0.0.1", number if role == "listener" else 8080)
    remote = Address("10.0.0.7", port) if role != "listener" else None
    return Descriptor(
        number, "tcp", f"socket:[{number}]", number, socket=Socket("tcp", role, state, local, remote, service)
    )


def absent(number: int, role: Role = "never-bound") -> Descriptor:
    return Descriptor(number, "tcp", f"socket:[{number}]", number, socket=Socket("tcp", role, "CLOSE", in_tables=False))


HELD = [tcp(1, "listener"), tcp(2, "outgoing", port=6379), tcp(3, "accepted")]


@pytest.mark.parametrize(
    ("role", "identity", "told"),
    [
        ("accepted", "tcp.accepted-piling-up", {"127.0.0.1:8080 (http-alt)": 200}),
        ("outgoing", "tcp.outgoing-piling-up", {"10.0.0.7:5432 (http-alt)": 200}),
        ("listener", "socket.listeners-piling-up", {"127.0.0.1 (tcp)": 200}),
    ],
)
def test_what_tcp_grows_by_is_named_with_its_end(scene: Any, role: Role, identity: str, told: dict[str, int]) -> None:
    state = "LISTEN" if role == "listener" else "ESTABLISHED"
    (finding,) = diagnose(scene(HELD, [tcp(number, role, state, service="http-alt") for number in range(100, 300)]))
    assert (finding.id, finding.severity) == (identity, "leak")
    assert finding.per_second == pytest.approx(20.0, rel=0.02)
    assert told in finding.evidence.values()
    assert next(iter(told)) in finding.title
    assert finding.evidence["seconds_to_limit"] == pytest.approx((1024 - 203) / 20, rel=0.02)


def test_what_it_is_not_has_figures(scene: Any) -> None:
    (finding,) = diagnose(scene(HELD, [tcp(number, "accepted") for number in range(100, 300)]))
    assert finding.ruled_out == {
        "listeners": {"held": 1, "opened meanwhile": 0},
        "outgoing": {"held": 1, "opened meanwhile": 0, "to 10.0.0.7:6379": 1},
        "CLOSE_WAIT": {"held": 0, "opened meanwhile": 0},
        "never bound": {"held": 0, "opened meanwhile": 0},
    }


def test_a_mixture_without_a_majority_is_growth_of_its_kind(scene: Any) -> None:
    fresh = [tcp(number, ("accepted", "outgoing", "listener")[number % 3]) for number in range(100, 300)]
    (finding,) = diagnose(scene(HELD, fresh))
    assert finding.id == "growth.tcp"
    assert finding.ruled_out == {
        "CLOSE_WAIT": {"held": 0, "opened meanwhile": 0},
        "never bound": {"held": 0, "opened meanwhile": 0},
    }


@pytest.mark.parametrize("role", ["accepted", "outgoing", "listener"])
def test_any_number_that_does_not_grow_is_no_finding(scene: Any, role: Role) -> None:
    assert diagnose(scene([tcp(number, role) for number in range(1, 800)])) == ()


def test_sockets_that_the_tables_do_not_know_are_told_beside_what_they_are(scene: Any) -> None:
    facts = scene([*HELD, *(absent(number) for number in range(100, 112))])
    assert [finding.id for finding in diagnose(facts)] == ["socket.never-bound", "socket.not-in-tables"]
    note = diagnose(facts)[1]
    assert note.title == "15 sockets are open, and the kernel's tables list 3 of them"
    assert diagnose(scene([*HELD, *(absent(number) for number in range(100, 109))])) == ()


def test_at_the_limit_nothing_is_left_and_the_hard_limit_names_the_command(scene: Any) -> None:
    (finding,) = diagnose(scene([tcp(number, "accepted") for number in range(64)], limit=64, hard=100))
    assert finding.id == "limit.exhausted"
    assert finding.title == "no descriptor is left: 64 of 64 in use"
    assert finding.evidence["hard_limit"] == 100
    assert "--nofile=100:" in finding.remedy
