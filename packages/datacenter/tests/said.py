"""What a process said on standard error, but for what it says of the machine."""

from __future__ import annotations

import re

_LAG = re.compile(r"^.*(?:a turn of the monitor hub took|events waited in the monitor of) .*\n", re.MULTILINE)


def said(errors: str) -> str:
    """`errors` without the monitor hub's warnings of its own lag (`lag_warn_s`, `lag_warn_events`): where others have
    the processors it is late, and rightly says so.
    """
    return _LAG.sub("", errors)
