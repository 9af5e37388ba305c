"""What the tests of `sockets/` share: waiting for conditions, a fresh context, and that every test ends as it began."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datacenter.sockets import OwnedSocket, SocketContext
from datacenter.sockets.ledger import Ledger, open_descriptors

DEADLINE_S = 10.0

Eventually = Callable[[Callable[[], object], str | Callable[[], str]], None]
Child = Callable[..., str]


def wait_until(condition: Callable[[], object], what: str | Callable[[], str]) -> None:
    """Return when `condition()` is true; fail, naming `what`, after a generous deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"did not happen within {DEADLINE_S} s: {what() if callable(what) else what}")
        time.sleep(0.002)


@pytest.fixture
def eventually() -> Eventually:
    return wait_until


@pytest.fixture(scope="session")
def ledger() -> Iterator[Ledger]:
    """The process's ledger, opened before the first context, so that it is exact."""
    opened = Ledger.open()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def ends_as_it_began(ledger: Ledger) -> Iterator[None]:
    """Every descriptor that the test opened is closed at its end, soon (libzmq's reaper closes a little later), and the
    ledger knew each of them.
    """
    gc.collect()
    before = open_descriptors()
    assert ledger.exact, ledger.reason
    yield
    gc.collect()
    end = time.monotonic() + DEADLINE_S
    while (now := open_descriptors()) != before or ledger.unexplained(before):
        if time.monotonic() > end:
            opened = {number: now[number] for number in now if now[number] != before.get(number)}
            gone = sorted(before.keys() - now.keys())
            pytest.fail(f"left open: {opened}; missing: {gone}; ledger: {ledger.unexplained(before)}")
        time.sleep(0.002)


class KeepingContext(SocketContext):
    """Keeps its sockets from being collected before the context is closed, as a program's own variables would."""

    def socket(self, kind: int, *, owner: str, **named: Any) -> OwnedSocket:
        made = super().socket(kind, owner=owner, **named)
        self.__dict__.setdefault("kept", []).append(made)
        return made


@pytest.fixture
def context() -> Iterator[SocketContext]:
    with KeepingContext("test") as made:
        yield made
        assert made.close().clean


@pytest.fixture
def child() -> Child:
    """Run a Python program in a process of its own; fail unless it ends with `status`; returns what it printed."""

    def run(program: str, status: int = 0, deadline_s: float = 60.0) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Exception ignored" not in done.stderr, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fork_programs/forks.c, compiled."""
    built = tmp_path_factory.mktemp("forks") / "libforks.so"
    source = Path(__file__).parent / "fork_programs" / "forks.c"
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(built), str(source)]
    subprocess.run(command, check=True)
    return built
