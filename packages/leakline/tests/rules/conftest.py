"""Facts for rules: a process that held some descriptors, and opened others at an even pace while it was observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from leakline.facts import Descriptor, Limits, Sample, Snapshot
from leakline.growth import judge
from leakline.rules.observed import Observed

Scene = Callable[..., Observed]


@pytest.fixture
def scene() -> Scene:
    """`scene(before, fresh)`: what it held, and what came on top, evenly over `seconds`; more fields of Observed by
    name, and of its snapshots in `seen`.
    """

    def build(
        before: Sequence[Descriptor],
        fresh: Sequence[Descriptor] = (),
        *,
        seconds: float = 10.0,
        limit: int = 1024,
        hard: int = 4096,
        seen: dict[str, Any] | None = None,
        **more: Any,
    ) -> Observed:
        steps = int(seconds * 10)
        samples = []
        for step in range(steps + 1):
            open_now = [*before, *fresh[: len(fresh) * step // steps]]
            samples.append(Sample(step / 10, len(open_now), dict(Counter(each.kind for each in open_now))))
        begin = Snapshot(1, "program", 0.0, tuple(before), Limits(limit, hard))
        end = msgspec.structs.replace(begin, at=seconds, descriptors=(*before, *fresh), **(seen or {}))
        return Observed(1, judge(samples, limit), samples[-1].kinds or {}, begin, end, **more)

    return build
