"""What only a look from inside can tell of the casebook's programs: which object has what leaks, and who holds that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from casebook.runner.expectation import REPOSITORY

DEADLINE_S = 90.0
# What holds the descriptors, as the evidence says it.
HELD = {
    "q_handles_of_dead_children.jobs": ("python.lost", ""),  # a bare number: nobody holds it
    "y_listener_per_reload.server": ("python.retained", "listeners"),
    "n_loop_per_request.service": ("python.waiting-for-gc", "epoll"),
}


def test_lost_retained_and_waiting_descriptors_are_told_apart(tmp_path: Path) -> None:
    words = [sys.executable, str(Path(__file__).with_name("diagnosed_from_inside.py"))]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    running = {
        name: subprocess.Popen([*words, f"casebook.{name}"], env=environment, stdout=subprocess.PIPE, text=True)
        for name in HELD
    }
    for name, process in running.items():
        said, _ = process.communicate(timeout=DEADLINE_S)
        report = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        told = {finding["id"]: json.dumps(finding["evidence"]) for finding in report["findings"]}
        identity, held = HELD[name]
        assert [each for each in told if each.startswith("python.")] == [identity], name
        assert held in told[identity]
