"""Sums over the workers of a family: counts of all that ever lived, gauges of those that live. Pure."""

from __future__ import annotations

from collections import Counter

from datacenter.prefork.messages import Statistics


class Totals:
    """`take` what workers tell: whole, never a difference. `ended` when one has."""

    def __init__(self) -> None:
        self._living: dict[int, Statistics] = {}
        self._ended: Counter[str] = Counter()

    def take(self, number: int, told: Statistics) -> None:
        self._living[number] = told

    def ended(self, number: int) -> None:
        """What it counted stays in the sum; what it had open is gone."""
        told = self._living.pop(number, None)
        if told is not None:
            self._ended.update(told.counts)

    def of(self, number: int) -> dict[str, int]:
        """What one living worker told last."""
        told = self._living.get(number)
        return {} if told is None else {**told.counts, **told.gauges}

    def of_ended(self) -> dict[str, int]:
        """What those counted that live no more."""
        return dict(self._ended)

    def sums(self) -> dict[str, int]:
        """Of all."""
        total = Counter(self._ended)
        for told in self._living.values():
            total.update(told.counts)
            total.update(told.gauges)
        return dict(total)
