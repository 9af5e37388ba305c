"""What fixtures of a scope wider than a test opened: theirs while they live; once they were torn down, to be closed."""

from __future__ import annotations

import gc
from typing import Any

from leakline.own_process.looks import Identity, Look, appeared
from leakline.pytest_plugin.judgement import FIXTURE

Owned = dict[int, Identity]  # number -> which descriptor that is


class Fixtures:
    """What fixtures of a scope wider than a test opened while they were set up."""

    def __init__(self) -> None:
        self._alive: dict[int, tuple[str, Owned]] = {}
        self._set_up: dict[int, tuple[str, Any]] = {}
        self._ended: dict[str, Owned] = {}

    def set_up(self, fixturedef: Any, name: str) -> None:
        """A fixture lives from now on."""
        self._set_up[id(fixturedef)] = name, fixturedef

    def values(self) -> dict[int, str]:
        """The values of fixtures that are alive, by id, in words. What is no container, or shared, says nothing."""
        cached = [(name, fixturedef.cached_result) for name, fixturedef in self._set_up.values()]
        values = [(name, result[0]) for name, result in cached if result is not None]
        return {id(value): f"{FIXTURE}{name}" for name, value in values if gc.is_tracked(value)}

    def opened(self, fixturedef: object, name: str, before: Look, after: Look) -> None:
        """A fixture was set up between two looks; what others opened meanwhile, for it, stays theirs."""
        taken = set(self.owned())
        new = {number: after.open[number] for number in appeared(before.open, after.open)}
        self._alive[id(fixturedef)] = (
            name,
            {number: each for number, each in new.items() if (number, each) not in taken},
        )

    def ended(self, fixturedef: object) -> None:
        """A fixture was torn down."""
        self._set_up.pop(id(fixturedef), None)
        name, opened = self._alive.pop(id(fixturedef), ("", {}))
        if opened:
            self._ended[name] = opened

    def take_ended(self) -> dict[str, Owned]:
        """What was opened by fixtures that were torn down since the last time, by name."""
        ended, self._ended = self._ended, {}
        return ended

    def owned(self) -> list[tuple[int, Identity]]:
        """Everything that belongs to a fixture that is alive."""
        return [each for _, opened in self._alive.values() for each in opened.items()]
