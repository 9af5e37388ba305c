"""Every registry: in memory, in ZooKeeper, and in ZooKeeper with two brokers of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from registry_books import Books, Party


@pytest.fixture(params=["memory", "zookeeper", "two brokers"])
async def parties(request: pytest.FixtureRequest, location: str) -> AsyncIterator[Callable[[str], Party]]:
    """`parties(name)` makes one. With two brokers every second one is at the other broker."""
    where = "memory" if request.param == "memory" else location
    books = [Books(f"broker{number}", where) for number in range(2 if request.param == "two brokers" else 1)]
    made: list[Party] = []
    for each in books:
        await each.ready()

    def make(name: str) -> Party:
        made.append(Party(books[len(made) % len(books)], name))
        return made[-1]

    yield make
    for party in made:
        party.silent()
    for each in books:
        await each.close()
