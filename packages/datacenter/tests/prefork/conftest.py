"""Families of real processes: a module to serve, a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datacenter.testing import Launcher, RunningBroker, RunningService

#: the version of the code is what `version` returns; the tests write another one
SHOP = """
import os, re, time
from datacenter import Service

shop = Service("shop")


@shop.method
async def pid() -> int:
    return os.getpid()


@shop.method
async def version() -> str:
    return "one"


@shop.method
def block(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@shop.method
def hold_the_interpreter() -> None:
    re.match(r"(a|a)*$", "a" * 60 + "b")  # for ever, in C, with the GIL


@shop.method
def has_children() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.fixture
def launch(folder: Path) -> Iterator[Launcher]:
    with Launcher(cwd=folder, environment={"PYTHONDONTWRITEBYTECODE": "1"}) as launcher:
        yield launcher


@pytest.fixture
def broker(launch: Launcher) -> RunningBroker:
    return launch.broker()


@pytest.fixture
def family(launch: Launcher, broker: RunningBroker) -> RunningService:
    """Two workers of shop, registered."""
    return launch.service("shop:shop", broker, options=("--workers", "2", "--drain-s", "1"), ready_s=60.0)
