"""A small sample of `make hold-recorder`: redis and nginx under `leakline run` are the same as without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("program", ["redis", "nginx"])
def test_a_recorded_server_is_the_same(program: str) -> None:
    script = Path(__file__).parent / "recorded_programs.py"
    done = subprocess.run(
        [sys.executable, str(script), program, "--requests", "500"], capture_output=True, text=True, timeout=100
    )
    if "left out" in done.stdout and os.geteuid() != 0:  # root's set-up installs them
        pytest.skip(done.stdout)
    assert "left out" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("holds\n")
