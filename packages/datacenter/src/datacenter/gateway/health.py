"""Whether a foreign server is fit to be used, judged by its checks. Pure: results in, transitions out.

    absent --pass--> healthy --fail × quiet_after--> quiet --fail × gone_after--> gone
                        ^---------- pass × back_after ---------/------------------/

`absent` is the beginning: never seen to pass. A quiet server stays in the registry and gets nothing new, so that what
is in progress there may finish; one that is gone leaves it. One failed check alone says nothing: a server that saves
its data answers late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from datacenter.checks import DAY_S, check, seconds, whole
from datacenter.options import option

Health = Literal["absent", "healthy", "quiet", "gone"]

QUIET_AFTER: Final = option(
    "watchdog", "quiet_after", 2, "checks", "M",
    "So many failed checks in a row, and a foreign server gets no new connections.",
)  # fmt: skip
GONE_AFTER: Final = option(
    "watchdog", "gone_after", 5, "checks", "M",
    "So many failed checks in a row, and it leaves the registry.",
)  # fmt: skip
BACK_AFTER: Final = option(
    "watchdog", "back_after", 2, "checks", "M",
    "So many passed checks in a row, and it is used again. More than one, so that a server which comes and goes does "
    "not take half of the connections down with it each time.",
)  # fmt: skip


INTERVAL_S: Final = option(
    "watchdog", "interval_s", 1.0, "s", "M", "From the end of one check of a server to the beginning of the next.",
)  # fmt: skip
TIMEOUT_S: Final = option(
    "watchdog", "timeout_s", 1.0, "s", "M",
    "A check that takes longer has failed: a firewall that drops packets refuses nothing.",
)  # fmt: skip


@dataclass(frozen=True)
class HealthOptions:
    """How many checks in a row it takes. Raises BadOptionError."""

    quiet_after: int = QUIET_AFTER
    gone_after: int = GONE_AFTER
    back_after: int = BACK_AFTER

    def __post_init__(self) -> None:
        check(self, quiet_after=whole(1), gone_after=whole(1), back_after=whole(1))


@dataclass(frozen=True)
class WatchdogOptions:
    """Seconds, and counts of checks in a row. Raises BadOptionError."""

    interval_s: float = INTERVAL_S
    timeout_s: float = TIMEOUT_S
    health: HealthOptions = field(default_factory=HealthOptions)

    def __post_init__(self) -> None:
        check(self, interval_s=seconds(0.01, DAY_S), timeout_s=seconds(0.01, DAY_S))


class HealthWatch:
    """The health of one server. `passed` and `failed` return the new health if it has changed, else None."""

    def __init__(self, options: HealthOptions | None = None) -> None:
        self.options = options or HealthOptions()
        self.health: Health = "absent"
        self._passes = 0
        self._failures = 0

    def passed(self) -> Health | None:
        """One check passed."""
        self._passes, self._failures = self._passes + 1, 0
        if self.health == "absent" or (self.health != "healthy" and self._passes >= self.options.back_after):
            return self._becomes("healthy")
        return None

    def failed(self) -> Health | None:
        """One check failed."""
        self._passes, self._failures = 0, self._failures + 1
        if self.health in ("healthy", "quiet") and self._failures >= self.options.gone_after:
            return self._becomes("gone")
        if self.health == "healthy" and self._failures >= self.options.quiet_after:
            return self._becomes("quiet")
        return None

    def _becomes(self, health: Health) -> Health:
        self.health = health
        return health
