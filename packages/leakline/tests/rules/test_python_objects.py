"""Which Python object keeps the descriptors that pile up."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from leakline.facts import Descriptor, PythonHolder, PythonHolders
from leakline.rules import diagnose

State = Literal["lost", "retained", "garbage"]


def files(numbers: range) -> list[Descriptor]:
    return [Descriptor(number, "file", f"/tmp/{number}") for number in numbers]


def holders(state: State, numbers: range) -> PythonHolders:
    return PythonHolders(0.0, tuple(PythonHolder(n, state, "io.FileIO", ("list of 200",)) for n in numbers))


@pytest.mark.parametrize(
    ("state", "identity"),
    [("lost", "python.lost"), ("retained", "python.retained"), ("garbage", "python.waiting-for-gc")],
)
def test_what_keeps_a_leak_is_told_beside_it(scene: Any, state: State, identity: str) -> None:
    found = diagnose(scene(files(range(5)), files(range(100, 300)), python=holders(state, range(120, 300))))
    assert [(each.id, each.severity) for each in found] == [("growth.file", "leak"), (identity, "warning")]
    assert found[1].evidence == {"held by": {"io.FileIO ← list of 200": 180}}
    few = diagnose(scene(files(range(5)), files(range(100, 300)), python=holders(state, range(220, 300))))
    assert [each.id for each in few] == ["growth.file"]


@pytest.mark.parametrize(
    ("state", "told"),
    [("lost", ["warning python.lost"]), ("retained", []), ("garbage", ["note python.waiting-for-gc"])],
)
def test_without_a_leak_only_what_nobody_will_close_is_told(scene: Any, state: State, told: list[str]) -> None:
    facts = scene(files(range(100)), python=holders(state, range(50)))
    assert [f"{each.severity} {each.id}" for each in diagnose(facts)] == told
    assert diagnose(scene(files(range(100)), python=holders(state, range(9)))) == ()
