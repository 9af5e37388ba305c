"""Real processes for the hold checks: a launcher a test, and one broker with one service for all tests that only
call.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datacenter.testing import Launcher, RunningBroker, RunningService

PROGRAMS = Path(__file__).parent


@pytest.fixture
def launch() -> Iterator[Launcher]:
    with Launcher(cwd=PROGRAMS) as launcher:
        yield launcher


@pytest.fixture(scope="session")
def lasting() -> Iterator[Launcher]:
    with Launcher(cwd=PROGRAMS) as launcher:
        yield launcher


@pytest.fixture(scope="session")
def shop_broker(lasting: Launcher) -> RunningBroker:
    """Its largest message is 1 MiB, so that too large ones are small."""
    return lasting.broker(options=("--max-message-bytes", "1048576", "--lease-s", "1"))


@pytest.fixture(scope="session")
def shop_service(lasting: Launcher, shop_broker: RunningBroker) -> RunningService:
    return lasting.service("shop:shop", shop_broker)
