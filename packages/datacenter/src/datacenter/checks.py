"""Checks the values of options: a wrong one is refused where it is given, not met by a loop an hour later.

    def __post_init__(self) -> None:
        check(self, deadline_s=seconds(above=0), max_in_flight=whole(1), insecure=FLAG)

Pure: no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from datacenter.errors import BadOptionError

#: the largest C int: libzmq, the wire and the relay's loop take no larger number
LARGEST: Final = 2**31 - 1
MAX_SECONDS: Final = 1e9
#: a heartbeat or a lease beyond a day finds nobody who is gone
DAY_S: Final = 86_400.0
DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Rule:
    """`says` completes "it must be …"."""

    allows: Callable[[object], bool]
    says: str


def whole(least: int = 0, most: int = LARGEST) -> Rule:
    """An int from `least` to `most`."""

    def allows(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return Rule(allows, f"a whole number from {least} to {most}")


def seconds(least: float = 0.0, most: float = MAX_SECONDS, *, above: float | None = None) -> Rule:
    """An int or float from `least` to `most`, or greater than `above`; never nan."""

    def allows(value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        return (value >= least if above is None else value > above) and value <= most

    bound = f"from {least:g}" if above is None else f"greater than {above:g} and"
    return Rule(allows, f"a number {bound} {'to' if above is None else 'at most'} {most:.15g}")


FLAG: Final = Rule(lambda value: isinstance(value, bool), "True or False")


def instance_of(kind: type, *, or_none: bool = False) -> Rule:
    """A value of this class, or also None."""
    says = f"{kind.__name__} or None" if or_none else kind.__name__
    return Rule(lambda value: isinstance(value, kind) or (or_none and value is None), says)


def check(options: object, **rules: Rule) -> None:
    """Raises BadOptionError for the first field of `options` that its rule does not allow: its name, value, range."""
    for name, rule in rules.items():
        value = getattr(options, name)
        if not rule.allows(value):
            raise BadOptionError(f"{name}={_shown(value)} cannot work: it must be {rule.says}")


def check_reconnect(options: object, least_ms: int, most_ms: int) -> None:
    """The two ends of the pause between attempts to connect, beside each other."""
    check(options, reconnect_min_ms=whole(1, DAY_MS), reconnect_max_ms=whole(1, DAY_MS))
    if least_ms > most_ms:
        raise BadOptionError(
            f"reconnect_min_ms={least_ms} is more than reconnect_max_ms={most_ms}",
            "The first pause between attempts cannot be longer than the longest: give both.",
        )


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**100:  # Python refuses to write thousands of digits
        return f"{'-' if value < 0 else ''}10**{math.log10(abs(value)):.0f}"
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"
