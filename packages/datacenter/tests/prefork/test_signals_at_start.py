"""A signal to the whole process group, as Ctrl-C and service managers send it, while the family is still being made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datacenter.testing import RunningBroker

COMMAND = [sys.executable, "-c", "from datacenter.commands import main; main()", "serve", "shop:shop", "--workers", "2"]
DEADLINE_S = 60.0


def first_child(pid: int) -> int:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.001)
    pytest.fail("no fork server was started")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_group_is_told_to_end_while_the_fork_server_starts(
    broker: RunningBroker, folder: Path, number: signal.Signals
) -> None:
    command = [*COMMAND, "--broker", broker.address]
    family = subprocess.Popen(
        command, cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        first_child(family.pid)
        os.killpg(family.pid, number)
        said, complained = family.communicate(timeout=DEADLINE_S)
    finally:
        family.kill()
        family.wait()
    assert family.returncode == 0, complained
    assert said == ""
    assert complained == ""
