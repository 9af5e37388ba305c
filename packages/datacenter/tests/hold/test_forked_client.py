"""A fork with calls in flight: the child is told, starts afresh and holds nothing of its parent's; the parent goes
on.
"""

from __future__ import annotations

from pathlib import Path

from datacenter.testing import Launcher
from said import said

FORKING = Path(__file__).with_name("forking.py")


def test_a_child_makes_its_own_client_and_the_parent_is_unharmed(launch: Launcher) -> None:
    broker = launch.broker()
    launch.service("shop:shop", broker)
    forking = launch.python(str(FORKING), broker.address)
    assert forking.wait(60) == 0, forking.errors
    forking.wait_line("^done$", 5)
    assert [line for _, line in forking.lines] == ["done"]
    assert not said(forking.errors)
