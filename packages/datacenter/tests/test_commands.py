"""The command line of datacenter as a user types it: real processes, their output, their exit codes."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from said import said

COMMAND = [sys.executable, "-m", "datacenter"]
GREETER = """
from datacenter import Service

greeter = Service("greeter")


@greeter.method
def hello(name: str) -> str:
    return f"Hello, {name}!"


@greeter.method
def blob() -> bytes:
    return b"abc"
"""


def run(*words: str, broker: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", **({"DATACENTER_BROKER": broker} if broker else {})}
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=cwd
    )


def start(*words: str, cwd: Path | None = None) -> tuple[subprocess.Popen[str], str]:
    """A process of datacenter, and the address in its first line, which says that it is ready."""
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"tcp://\S+", line)
    if found is None:
        process.kill()
        pytest.fail(f"not ready: {line!r} {process.communicate()[1]}")
    return process, found.group()


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    process, address = start("up", "--listen", "tcp://127.0.0.1:0", "--lease-s", "1.5")
    yield address
    status, errors = end(process)
    assert (status, said(errors)) == (0, "broker: ending\n")


@pytest.fixture(scope="module")
def greeter(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("greeter")
    (folder / "greeter.py").write_text(GREETER)
    process, _ = start("serve", "greeter:greeter", "--broker", broker, cwd=folder)
    yield process.pid
    status, errors = end(process, signal.SIGINT)
    assert (status, said(errors)) == (0, "")


def test_a_call_from_the_shell_prints_its_result_as_json(broker: str, greeter: int) -> None:
    done = run("call", "greeter.hello", "Ann", broker=broker)
    assert (done.returncode, done.stdout) == (0, '"Hello, Ann!"\n'), done.stderr
    assert run("call", "greeter.hello", "name=Ann", broker=broker).stdout == '"Hello, Ann!"\n'
    assert run("call", "greeter.blob", broker=broker).stdout == '"YWJj"\n'


MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    (("call", "greeter.hello", "5"), 1, "Expected `str`, got `int` - at `name`"),
    (("call", "greeter.goodbye"), 1, "It has: blob, hello."),
    (("call", "stranger.hello"), 1, "datacenter serve MODULE:stranger"),
    (("call", "greeter"), 2, "Write SERVICE.METHOD"),
    (("call", "greeter.hello", "name=Ann", "5"), 1, "Put positional arguments first"),
    (("serve", "greeter"), 2, "Write MODULE:SERVICE"),
    (("serve", "no_such_module:greeter"), 2, "there is no module 'no_such_module'"),
    (("serve", "json:greeter"), 2, "json has no Service named 'greeter'"),
    (("up", "--listen", "127.0.0.1:7700"), 2, "tcp://127.0.0.1:7700"),
    (("up", "--listen", "tcp://0.0.0.0:0"), 2, "insecure"),
    (("fds", "999999999"), 1, "999999999"),
    (("fds", "1"), 1, "1"),
    (("up", "--lease-s", "soon"), 2, "--lease-s"),
]


@pytest.fixture(scope="module")
def mistaken(broker: str, greeter: int) -> dict[tuple[str, ...], subprocess.CompletedProcess[str]]:
    """All of MISTAKES, typed at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(MISTAKES)) as at_once:
        running = {words: at_once.submit(run, *words, broker=broker) for words, _, _ in MISTAKES}
    return {words: done.result() for words, done in running.items()}


@pytest.mark.parametrize(("words", "status", "text"), MISTAKES, ids=[" ".join(words) for words, _, _ in MISTAKES])
def test_a_mistake_gets_one_message_that_says_what_to_type(
    mistaken: dict[tuple[str, ...], subprocess.CompletedProcess[str]], words: tuple[str, ...], status: int, text: str
) -> None:
    done = mistaken[words]
    assert text in done.stderr
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_two_brokers_on_one_port(broker: str) -> None:
    done = run("up", "--listen", broker)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert broker.rpartition(":")[2] in done.stderr


def test_nobody_there() -> None:
    done = run("ls", broker="tcp://127.0.0.1:9")
    assert done.returncode == 3
    assert "datacenter up" in done.stderr


def test_ls_shows_who_serves_what(broker: str, greeter: int) -> None:
    lines = run("ls", broker=broker).stdout.splitlines()
    assert lines[0].split() == ["SERVICE", "TYPE", "STATE", "PID", "ENDPOINT", "METHODS"]
    assert lines[1].split()[:4] == ["greeter", "rpc", "live", str(greeter)]
    answer = json.loads(run("ls", "--json", broker=broker).stdout)
    assert answer["schema"] == 1
    methods = answer["services"][0]["instances"][0]["methods"]
    assert methods[0] == {"name": "hello", "signature": "(name: str) -> str", "idempotent": False}


def test_fds_says_whose_every_descriptor_is(broker: str, greeter: int) -> None:
    done = run("fds", str(greeter), "--json")
    answer = json.loads(done.stdout)
    assert answer["exact"] is True
    assert set(answer["counts"]) == {"owned", "other"}, done.stdout
    assert "0 unaccounted" in run("fds", str(greeter)).stdout


def test_doctor_is_leakline(greeter: int) -> None:
    done = run("doctor", str(greeter), "--for", "1s", "--json")
    assert json.loads(done.stdout)["pid"] == greeter, done.stderr


def test_every_subcommand_explains_itself_with_examples() -> None:
    names = re.findall(r"^  (\w+) ", run("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert set(names) >= {"up", "serve", "ls", "call", "fds", "demo", "doctor"}
    with concurrent.futures.ThreadPoolExecutor() as at_once:
        helps = {name: at_once.submit(run, name, "--help") for name in set(names) - {"doctor"}}
    for name, done in helps.items():
        assert f"datacenter {name}" in done.result().stdout, name
