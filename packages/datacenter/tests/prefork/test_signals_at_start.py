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
TRIES = 5  # where this test gets no processor for a second, the family serves meanwhile


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
    for _ in range(TRIES):
        if told_to_end(broker, folder, number) == "":
            return
    pytest.fail("each time it served before it was told to end: this machine is too busy")


def told_to_end(broker: RunningBroker, folder: Path, number: signal.Signals) -> str:
    """What a family said that is told so as soon as it has a child; "" if that was before it served."""
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
    assert (family.returncode, complained) == (0, "")
    return said
