"""A small run of the simulation behind docs/scale.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_simulation_prints_its_table() -> None:
    program = Path(__file__).with_name("hold_scale.py")
    done = subprocess.run([sys.executable, str(program), "--hosts", "50"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "50 hosts, 500 instances, 5 names of 100" in done.stdout
    assert "first to be full" in done.stdout
