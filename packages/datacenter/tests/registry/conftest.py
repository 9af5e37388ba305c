"""One real ZooKeeper server for all tests of registries that one worker plays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from datacenter.testing import Ensemble

_paths = itertools.count()


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with Ensemble(tmp_path_factory.mktemp("zookeeper")) as made:
        yield made


@pytest.fixture
def location(ensemble: Ensemble) -> str:
    """A registry in ZooKeeper that no other test uses."""
    return ensemble.url(f"/test-{next(_paths)}")
