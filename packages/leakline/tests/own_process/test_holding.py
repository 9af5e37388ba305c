"""Who holds a descriptor in a Python process: one that keeps them in every way, on each Python here."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
from pathlib import Path

import pytest

from leakline.own_process.inside import held

PROGRAM = Path(__file__).with_name("keeps.py")
SOURCES = Path(__file__).parents[2] / "src"
INTERPRETERS = runpy.run_path(str(PROGRAM.parents[1] / "recorder/target/interpreters.py"))["interpreters"]()
VERSIONS = sorted(version for version in INTERPRETERS if version.startswith("3.1"))

EXPECTED = {
    "global": ("retained", "socket.socket", ["attribute _socket of __main__.Client", "global KEPT of module __main__"]),
    "slot": ("retained", "socket.socket", ["attribute socket of __main__.Slotted", "item of a list of 3", "global"]),
    "class": (
        "retained",
        "_io.FileIO",
        ["_io.TextIOWrapper", "item of a tuple of 1", "attribute POOL of class __main__"],
    ),
    "selector": ("retained", "select.epoll", ["attribute _selector of selectors.EpollSelector", "global SELECTOR"]),
    "untracked": ("retained", "select.epoll", None),
    "connection": ("retained", "multiprocessing.connection.Connection", ["global RECEIVER of module __main__"]),
    "generator": ("retained", "socket.socket", None),
    "closure": ("retained", "socket.socket", None),
    "local": ("retained", "socket.socket", ["a local variable of a running function, or C code"]),
    "local cycle": ("retained", "socket.socket", ["attribute _socket of __main__.Client", "a local variable"]),
    "cycle": ("garbage", "socket.socket", None),
    "long cycle": ("garbage", "socket.socket", None),
    "number": ("lost", "", []),
    "detached": ("lost", "", []),
    "frozen": ("retained", "socket.socket", ["item of a list of 1", "global FROZEN of module __main__"]),
    "hostile": ("retained", "__main__.Hostile", ["global HOSTILE of module __main__"]),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_way_of_keeping_one(version: str) -> None:
    python = INTERPRETERS[version]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    ran = subprocess.run(
        [python, "-X", "dev", "-W", "ignore", PROGRAM], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found.keys() == EXPECTED.keys()
    for name, (state, kind, chain) in EXPECTED.items():
        told = found[name]
        assert (name, told["state"], told["type"]) == (name, state, kind), told
        for link, begins in zip(told["chain"], chain or [], strict=False):
            assert link.startswith(begins), told
        assert chain is None or len(told["chain"]) >= len(chain), told


def test_what_is_closed_or_unknown_has_no_holder() -> None:
    found, incomplete = held([100_000])
    assert [each["state"] for each in found] == ["lost"]
    assert incomplete == []


def test_without_time_nothing_is_claimed() -> None:
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "wb"):
        found, incomplete = held([read, write], budget_s=0.0)
        assert {each["state"] for each in found} == {"unknown"}
        assert incomplete
