"""One look at the whole stage: what a display needs to know. Pure data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One process by now. `counts`: descriptors by kind; `per_second`: leaked ones; `answered`: calls."""

    name: str
    pid: int
    alive: bool
    counts: dict[str, int]
    limit: int | None
    per_second: float
    answered: int | None
    verdict: str
    blocked: bool
    left_s: float | None


@dataclass(frozen=True)
class Scene:
    """All processes by now, and what has happened so far: (seconds since the start, text), oldest first."""

    elapsed_s: float
    seconds: float
    stage: str
    outages: int
    rows: tuple[Row, ...]
    events: tuple[tuple[float, str], ...]
    foretold_at_s: float | None
