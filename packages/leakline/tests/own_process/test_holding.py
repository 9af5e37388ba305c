"""Who holds a descriptor in a Python process: one that keeps them in every way, on each Python here."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leakline.errors import UnsupportedError
from leakline.own_process.inside import held
from leakline.own_process.remote import holders_in, script
from leakline.remote_exec import complete

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
    "scandir": ("retained", "posix.ScandirIterator", None),
    "closure": ("retained", "socket.socket", None),
    "local": ("retained", "socket.socket", ["a local variable of a running function, or C code"]),
    "local cycle": ("retained", "socket.socket", ["attribute _socket of __main__.Client", "a local variable"]),
    "cycle": ("garbage", "socket.socket", None),
    "long cycle": ("garbage", "socket.socket", None),
    "number": ("lost", "", []),
    "directory": ("lost", "", []),
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


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_the_script_for_another_process_answers_in_a_file_and_leaves_nothing(version: str, tmp_path: Path) -> None:
    """Run as the interpreter runs it when another process asks for that: where `leakline` cannot be imported."""
    place = tmp_path / "answer.json"
    (tmp_path / "look.py").write_text(complete(script([3, 100_000]), str(place)))
    program = """if True:
        import os, socket, sys
        kept = [socket.socket()]
        assert kept[0].fileno() == 3
        before = set(sys.modules)
        exec(compile(open("look.py").read(), "look.py", "exec"), {})
        assert not [name for name in sys.modules if "leakline" in name]
        assert os.listdir("/proc/self/fd") == ["0", "1", "2", "3", "4"], os.listdir("/proc/self/fd")
    """
    command = [INTERPRETERS[version], "-I", "-W", "ignore", "-c", program]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=100)
    (kept, absent), incomplete = json.loads(place.read_text())
    assert (kept["state"], kept["chain"]) == ("retained", ["item of a list of 1", "global kept of module __main__"])
    assert (absent["state"], incomplete) == ("lost", [])


def test_another_process_is_asked_or_it_is_said_why_not(targets: Any) -> None:
    target = targets.start("leak", "tcp")
    if hasattr(sys, "remote_exec"):
        assert [each.state for each in holders_in(target.pid, [100_000]).holders] == ["lost"]
    else:
        with pytest.raises(UnsupportedError, match=r"Python 3\.14 or later only; this is 3\.") as caught:
            holders_in(target.pid, [3])
        assert "leakline.diagnose() or pytest --leakline in it" in caught.value.hint


def test_what_is_closed_or_unknown_has_no_holder() -> None:
    found, incomplete = held([100_000])
    assert [each["state"] for each in found] == ["lost"]
    assert incomplete == []


def test_directories_that_a_running_function_goes_through_are_not_called_lost(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in os.scandir(tmp_path):  # the iterator is on the stack of this frame alone
        numbers = [int(path.name) for path in Path("/proc/self/fd").iterdir() if path.resolve() == tmp_path]
        found, incomplete = held(numbers)
    assert [each["state"] for each in found] == ["unknown"]
    assert incomplete == ["who holds 1 directories: iterators of a running function, or C code"]


def test_without_time_nothing_is_claimed() -> None:
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "wb"):
        found, incomplete = held([read, write], budget_s=0.0)
        assert {each["state"] for each in found} == {"unknown"}
        assert incomplete
