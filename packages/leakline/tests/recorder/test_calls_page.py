"""docs/recorder-calls.md says what the recorder intercepts."""

from __future__ import annotations

import subprocess
from pathlib import Path

from leakline.recorder.calls_page import LIST, groups, render

PAGE = Path(__file__).resolve().parents[4] / "docs" / "recorder-calls.md"
LIBRARY = LIST.with_name("libleakline_recorder.so")


def test_the_page_is_that_of_the_list() -> None:
    assert PAGE.read_text() == render(), "docs/recorder-calls.md is old: make docs-calls"


def test_the_library_exports_what_the_list_has_and_nothing_else() -> None:
    """A name more would be taken for one of the target's own functions."""
    told = {"REQUESTS", "SYSTEM_CALLS"}  # of ioctl() and syscall(): no functions
    listed = {name for group in groups(LIST.read_text()) if group.name not in told for name, _ in group.functions}
    command = ["nm", "-D", "--defined-only", str(LIBRARY)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    exported = {line.split()[2] for line in lines}
    assert {name for name in exported if not name.startswith("leakline_recorder_")} == listed
