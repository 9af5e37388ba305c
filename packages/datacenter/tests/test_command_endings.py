"""Commands in the corners: a service with code that does not return, words that mean something else, odd modules."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datacenter import Client
from datacenter.errors import DeadlineError
from datacenter.testing import Launcher, Process

STUCK = """
import asyncio
import time

from datacenter import Service

stuck = Service("stuck")


@stuck.method
async def in_the_executor() -> None:
    print("entered", flush=True)
    await asyncio.to_thread(time.sleep, 600)


@stuck.method
def in_a_thread_of_the_service() -> None:
    print("entered", flush=True)
    time.sleep(600)


@stuck.method
def words(returns: str = "", deadline_s: float = 0) -> str:
    return f"{returns} {deadline_s:g}"
"""


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    (tmp_path / "stuck.py").write_text(STUCK)
    with Launcher(cwd=tmp_path, environment={"NO_COLOR": "1"}) as made:
        yield made


def told(process: Process, status: int) -> str:
    """What a command that must fail with `status` says; never a traceback."""
    assert process.wait(20) == status, process.errors
    assert "Traceback" not in process.errors
    return process.errors


@pytest.mark.parametrize("method", ["in_the_executor", "in_a_thread_of_the_service"])
def test_a_service_whose_code_does_not_return_ends_within_moments(launch: Launcher, method: str) -> None:
    broker = launch.broker()
    service = launch.service("stuck:stuck", broker, options=("--drain-s", "0.2"))
    with Client(broker.address) as client, pytest.raises(DeadlineError):
        client.call(f"stuck.{method}", deadline_s=0.2)
    service.wait_line("^entered$")
    started = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait(10) == 0, service.errors
    assert time.monotonic() - started < 5  # about one second on a machine that is not busy


def test_words_that_are_parameters_of_a_call_are_given_by_position(launch: Launcher) -> None:
    refused = {name: launch.command("call", "stuck.words", f"{name}=5") for name in ("deadline_s", "returns")}
    broker = launch.broker()
    launch.service("stuck:stuck", broker)
    process = launch.command("call", "stuck.words", "x", "5", "--broker", broker.address)
    process.wait_line('^"x 5"$')
    assert process.wait() == 0, process.errors
    for name, command in refused.items():
        errors = told(command, 1)
        assert f"{name}=… cannot be given by name" in errors
        assert "Give it by position" in errors


def test_a_module_that_is_named_relatively_cannot_be_imported(launch: Launcher) -> None:
    errors = told(launch.command("serve", ".stuck:stuck"), 2)
    assert ".stuck cannot be imported" in errors
