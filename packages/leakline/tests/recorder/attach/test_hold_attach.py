"""A small sample of `make hold-attach`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.alone
def test_ten_attachments_to_busy_processes() -> None:
    script = Path(__file__).with_name("hold_attach.py")
    ended = subprocess.run([sys.executable, script, "10"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("held\n")
