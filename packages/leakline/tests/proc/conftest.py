"""Real processes to look at: each runs a few lines of Python, says that it is ready, and lives until the test ends."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

END = """
import json as _json, sys as _sys
print(_json.dumps(fds), flush=True)
_sys.stdin.read()
"""


class Target(NamedTuple):
    """A process that waits; `fds` is what it told about itself: descriptor numbers by name."""

    pid: int
    fds: dict[str, Any]
    process: subprocess.Popen[str]


Start = Callable[..., Target]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process from source code that fills `fds`; `prefix` goes before the command (`ip netns exec …`)."""
    with ExitStack() as stack:

        def run(code: str, *, prefix: tuple[str, ...] = ()) -> Target:
            source = "fds = {}\n" + textwrap.dedent(code) + END
            process = subprocess.Popen(
                [*prefix, sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(_end, process)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the process to look at did not start"
            return Target(process.pid, json.loads(line), process)

        yield run


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()
