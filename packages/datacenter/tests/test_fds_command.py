"""`datacenter fds PID`, as a user runs it, on real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., int]
PROGRAM = Path(__file__).parent / "sockets" / "ledger_programs" / "busy_process.py"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*modes)` runs a datacenter process and returns its pid when it is ready."""
    running: list[subprocess.Popen[str]] = []

    def run(*modes: str) -> int:
        environment = {**os.environ, "DATACENTER_RUNTIME_DIR": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *modes], stdout=subprocess.PIPE, text=True, env=environment
        )
        running.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    yield run
    for process in running:
        process.kill()
        process.communicate()


def fds(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, in an environment of its own: it must find the ledger by itself."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("RUNTIME_DIR")}
    command = [sys.executable, "-c", "from datacenter.commands import main; main()", "fds", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_every_descriptor_has_a_line_with_kind_owner_and_age(start: Start) -> None:
    pid = start()
    before = sorted(os.listdir(f"/proc/{pid}/fd"), key=int)
    done = fds(pid)
    assert done.returncode == 0, done.stderr
    header, *lines, summary, certainty = done.stdout.splitlines()
    assert header.split()[:4] == ["FD", "KIND", "OWNER", "AGE"]
    assert [line.split()[0] for line in lines] == before
    assert sum("context datacenter" in line for line in lines) == 6
    (listener,) = (line for line in lines if " tcp " in line)
    assert "server" in listener
    assert "127.0.0.1:" in listener
    assert listener.endswith("LISTEN")
    assert sum("wake-up" in line for line in lines) == 2
    assert any(" * " in line and line.endswith("/etc/passwd") for line in lines)
    total = len(lines)
    assert summary.startswith(f"{total} descriptors: 9 owned by datacenter, {total - 9} others (stdin, stdout, stderr")
    assert summary.endswith(", 0 unaccounted")
    assert certainty == "exact: every descriptor that libzmq opens is seen"
    assert sorted(os.listdir(f"/proc/{pid}/fd"), key=int) == before


def test_what_does_not_add_up_is_marked(start: Start) -> None:
    found = json.loads(fds(start("wrong"), "--json").stdout)
    assert found["schema"] == 1
    assert found["exact"]
    assert found["settled"]
    status = {each["owner"]: (each["status"], each["detail"]) for each in found["descriptors"]}
    assert status["never opened"] == ("missing", "not open: the ledger is wrong")
    assert status["taken over"] == ("mismatched", "is /etc/passwd now")
    assert found["counts"]["missing"] == found["counts"]["mismatched"] == 1


def test_a_process_that_never_rests_is_answered_too(start: Start) -> None:
    done = fds(start("churn"))
    assert done.returncode == 0, done.stderr
    assert "context datacenter" in done.stdout


@pytest.mark.parametrize(
    ("pid", "message"),
    [(0, "There is no process 0."), (4194305, "There is no process 4194305.")],
)
def test_wrong_processes_are_one_message_with_what_to_type(pid: int, message: str) -> None:
    done = fds(pid)
    assert done.returncode == 1
    assert message in done.stderr
    assert "type `" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_process_without_a_ledger_is_told_apart() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:  # it lasts until its input is closed
        done = fds(process.pid)
    assert done.returncode == 1
    assert "keeps no ledger" in done.stderr
    assert "type `" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
