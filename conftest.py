"""What every test begins with."""

from __future__ import annotations

import gc
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A shell without job control starts what it puts into the background (`make test &`) with SIGINT ignored, and so would
# be every process that a test starts to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """A library whose structures are not those of the Python sources writes where it must not: an abort somewhere."""
    if hasattr(session.config, "workerinput"):
        return
    folders = [makefile.parent for makefile in Path(__file__).parent.glob("packages/*/src/**/native/Makefile")]
    old = [
        folder
        for folder in folders
        if subprocess.run(["make", "-q", "-C", str(folder)], capture_output=True).returncode
    ]
    if old:
        names = ", ".join(str(folder.relative_to(Path(__file__).parent)) for folder in old)
        pytest.exit(f"older than their sources: the libraries of {names}. Build them: make native", returncode=4)


class OneByOne(LoadScopeScheduling):
    """What is to run alone is played by one worker; the demo, which mostly waits, meanwhile by another."""

    def _split_scope(self, nodeid: str) -> str:
        return "demo" if "/test_demo.py::" in nodeid else "alone"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """For `pytest -n 2 -m alone`. (xdist 3.8 has groups for this, which pytest 9.2 does not let it name.)"""
    return OneByOne(config, log) if config.option.markexpr == "alone" else None


def pytest_collection_finish() -> None:
    """Many tests collect garbage as they begin and end, so that what they left is closed. Of what pytest and the
    imports made nothing becomes garbage, and to look through it each time was nine tenths of a short test.
    """
    gc.collect()
    gc.freeze()
