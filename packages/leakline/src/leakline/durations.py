"""Durations as people type them: 10s, 2m, 500ms, 1.5h, or a bare number of seconds."""

from __future__ import annotations

import re

from leakline.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SHAPE = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|)", re.ASCII)
LONGEST_S = 24 * 3600.0


def seconds_of(text: str) -> float:
    """The seconds of a duration, more than 0 and at most a day; raises UsageError."""
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"`{text}` is no duration", "write a number with its unit: 500ms, 10s, 2m, 1h")
    seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 < seconds <= LONGEST_S:
        raise UsageError(f"a duration of {text} is out of range", "give more than 0, and at most 24h")
    return seconds


def in_words(seconds: float) -> str:
    """`0.8 s`, `24 s`, `3 min 20 s`, `2 h 10 min`, `5 days`: as exact as a forecast deserves."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 and whole % 60 else f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"
