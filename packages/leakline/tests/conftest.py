"""Real processes to look at: started for a test, ended by their own handle after it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TARGETS = Path(__file__).with_name("targets.py")


class Targets:
    """Starts programs of targets.py, and waits until each is ready."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def launch(self, *words: str) -> subprocess.Popen[str]:
        """Start one and do not wait: several can become ready at the same time."""
        command = [sys.executable, str(TARGETS), *words]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._running.append(process)
        return process

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start one and wait until it is ready."""
        process = self.launch(*words)
        self.wait(process)
        return process

    @staticmethod
    def wait(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the program ended before it was ready"

    def end(self) -> None:
        for process in self._running:
            process.kill()
        for process in self._running:
            process.communicate()


@pytest.fixture
def targets() -> Iterator[Targets]:
    """Programs to look at, for one test."""
    started = Targets()
    yield started
    started.end()


@pytest.fixture(scope="module")
def shared_targets() -> Iterator[Targets]:
    """Programs to look at, for all tests of a module."""
    started = Targets()
    yield started
    started.end()


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli() -> Cli:
    """`cli(*words)` runs the command line as a user would, its output piped."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from leakline.commands import main; main()", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})

    return run
