"""A sample of `make torture`, and the injector itself."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone


HERE = Path(__file__).parent
PROGRAM = """
import errno, os, select, socket, sys
sys.path.insert(0, {here!r})
from pathlib import Path
from control import Control
control = Control(Path(os.environ["TORTURE_CONTROL"]))

def numbers(makers):
    found = []
    for make in makers:
        try:
            found.append(make())
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    return [one if isinstance(one, str) else "made" for one in found]

makers = (os.pipe, lambda: os.eventfd(0), socket.socket, select.epoll, lambda: open("/dev/null"), socket.socketpair)
print(numbers(makers))
control.set(2, errno.ENFILE, False)
with control.armed():
    print(numbers(makers))
print(control.calls, control.failed, [record.split()[0] for record in control.records()])
control.set(3, errno.ENOMEM, True)
with control.armed():
    print(numbers(makers))
print(numbers(makers))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.append(str(HERE))
    try:
        import control
    finally:
        sys.path.remove(str(HERE))
    return control.build(tmp_path_factory.mktemp("injector"))


def test_the_injector_fails_the_call_it_is_told_to_and_no_other(library: Path, tmp_path: Path) -> None:
    steering = tmp_path / "control"
    steering.write_bytes(bytes(24 + 1024 * 64))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(here=str(HERE))],
        env={**os.environ, "LD_PRELOAD": str(library), "TORTURE_CONTROL": str(steering)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    made = "made"
    assert [*map(eval, done.stdout.splitlines()[:2])] == [
        [made] * 6,
        [made, errno.errorcode[errno.ENFILE], made, made, made, made],
    ]
    counted, good, after = done.stdout.splitlines()[2:]
    assert counted == "6 1 ['pipe2', 'eventfd', 'socket', 'epoll_create1', 'open64', 'socketpair']"
    assert eval(good) == [made, made, *[errno.errorcode[errno.ENOMEM]] * 4]
    assert eval(after) == [made] * 6


def test_a_call_that_fails_in_each_phase_ends_as_it_may() -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "torture.py"), "--sample", "--error", "EMFILE"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert done.stdout.endswith("\nholds\n")
