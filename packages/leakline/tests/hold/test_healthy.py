"""A short sample of `make hold-healthy`: redis, nginx and a Python server under load are not called leaking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_healthy_servers_under_load_are_steady() -> None:
    script = Path(__file__).parent / "healthy.py"
    words = [sys.executable, str(script), "redis", "nginx", "asyncio", "--for", "6s"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    if "left out" in done.stdout and os.geteuid() != 0:  # root's set-up installs them
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("holds\n")
