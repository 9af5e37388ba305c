"""What the tests of foreign services share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datacenter.testing.launcher import Launcher


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    with Launcher(cwd=tmp_path) as made:
        yield made
