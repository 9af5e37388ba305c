"""Real writers of tables: started for a test, ended by their own handle after it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start(source, *args)` runs a Python program and waits for its first line of output, which it must print."""
    running: list[subprocess.Popen[str]] = []

    def run(source: str, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", "-c", textwrap.dedent(source), *args]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline(), "the program ended before it was ready"
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()
