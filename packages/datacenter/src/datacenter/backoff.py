"""Waiting times between attempts: they double up to a maximum, with jitter, and start anew after a success. Pure."""

from __future__ import annotations

import random


class Backoff:
    """`next()` gives the seconds to wait before the next attempt: the first is at most `first_s`, none exceeds `max_s`.

    Jitter takes up to half off, so that a thousand clients of one restarted broker do not come back in step.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._attempts = 0

    def next(self) -> float:
        wait_s = min(self._max_s, self._first_s * float(2 ** min(self._attempts, 30)))
        self._attempts += 1
        return wait_s * (0.5 + random.random() / 2)

    def reset(self) -> None:
        self._attempts = 0
