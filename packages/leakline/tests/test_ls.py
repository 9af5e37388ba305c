"""`leakline ls` as it is typed: text, JSON, filters, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

LEAKLINE = (sys.executable, "-c", "from leakline.commands import main; main()")
TARGET = """
import json, os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
unbound = socket.socket()
nasty = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.unlink(sys.argv[1])
print(json.dumps([server.getsockname()[1], server.fileno(), client.fileno(), unbound.fileno(), nasty]), flush=True)
sys.stdin.read()
"""


class Observed(NamedTuple):
    pid: int
    port: int
    server: int
    client: int
    unbound: int
    nasty: int


@pytest.fixture
def observed(tmp_path: object) -> Iterator[Observed]:
    command = [sys.executable, "-c", TARGET, f"{tmp_path}/\x1b[2Jclears\nthe screen"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Observed(process.pid, *json.loads(process.stdout.readline()))


def ls(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LEAKLINE, "ls", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_one_line_a_descriptor_and_the_sums(observed: Observed) -> None:
    result = ls(observed.pid)
    assert (result.returncode, result.stderr) == (0, "")
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["FD", "KIND", "ROLE", "STATE", "LOCAL", "REMOTE", "FLAGS", "TARGET"]
    rows = {line.split()[0]: line for line in lines}
    assert f"listener     LISTEN       127.0.0.1:{observed.port}" in rows[str(observed.server)]
    assert "never-bound" in rows[str(observed.unbound)]
    assert "w,cloexec,append" in rows[str(observed.nasty)]
    assert lines[-2].startswith(f"{len(lines) - 2} descriptors: tcp 4")
    assert lines[-1].startswith("limit ")
    assert f"highest number {observed.nasty}" in lines[-1]


def test_file_names_cannot_control_the_terminal(observed: Observed) -> None:
    output = ls(observed.pid).stdout
    assert "\x1b" not in output
    assert "\\x1b[2Jclears\\nthe screen (deleted)" in output


def test_json_has_everything(observed: Observed) -> None:
    report = json.loads(ls(observed.pid, "--json").stdout)
    assert (report["schema"], report["pid"], report["unreadable"]) == (1, observed.pid, [])
    assert report["total"] == len(report["descriptors"]) == sum(report["counts"].values())
    assert report["highest"] == observed.nasty
    by_number = {descriptor["number"]: descriptor for descriptor in report["descriptors"]}
    client = by_number[observed.client]
    assert client["socket"]["role"] == "outgoing"
    assert client["socket"]["remote"] == {"host": "127.0.0.1", "port": observed.port}
    assert client["close_on_exec"] is True


def test_kinds_select(observed: Observed) -> None:
    report = json.loads(ls(observed.pid, "--json", "--kind", "tcp", "--kind", "pipe").stdout)
    assert {descriptor["kind"] for descriptor in report["descriptors"]} == {"tcp", "pipe"}
    assert report["total"] > len(report["descriptors"])
    missing = ls(observed.pid, "--kind", "timerfd")
    assert missing.returncode == 0
    assert f"process {observed.pid} has no timerfd; its kinds: tcp" in missing.stderr


def test_errors_say_what_to_do_without_a_traceback() -> None:
    for arguments, code, words in (
        (("999999999",), 3, "there is no process 999999999"),
        (("no-such-program-anywhere",), 3, "no process is named 'no-such-program-anywhere'"),
        ((), 2, "PID|NAME"),
    ):
        result = ls(*arguments)
        assert (result.returncode, result.stdout) == (code, "")
        assert words in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_lines_of_its_width_and_colour_if_wanted(observed: Observed, no_color: bool) -> None:
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = "1"
    output = _on_a_terminal([*LEAKLINE, "ls", str(observed.pid)], environment)
    assert ("\x1b[" in output) is not no_color
    if no_color:
        listing = [line for line in output.splitlines() if not line.startswith("limit")][:-1]
        assert max(map(len, listing)) == 60


def _on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:  # EIO: the terminal's last user is gone
            pass
        os.close(ours)
        assert process.wait(60) == 0
    return b"".join(chunks).decode()
