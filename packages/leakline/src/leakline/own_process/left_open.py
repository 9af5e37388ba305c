"""What was left open since a moment: waits a little for what is closed late. `leaks` says what each is."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection

from leakline.own_process.looks import Look, appeared, look
from leakline.own_process.recorder import OwnRecorder

GRACE_S = 0.5  # threads (an event loop's, libzmq's reaper) close a little later what they were told to close
_PAUSES_S = (0.0005, 0.02)  # between two looks: the first, and the longest

Candidates = Callable[[Look], Collection[int]]


def left_open(before: Look, recorder: OwnRecorder | None, grace_s: float, which: Candidates | None = None) -> set[int]:
    """Numbers that were opened since `before` and are still open after a collection of garbage and `grace_s` seconds.

    `which` says of a look what is to count; None: all that appeared. Returns at once when nothing is left.
    """

    def left() -> set[int]:
        now = look(recorder)
        return set(appeared(before.open, now.open) if which is None else which(now))

    found = left()
    if not found:
        return found
    gc.collect()
    until, pause = time.monotonic() + grace_s, _PAUSES_S[0]
    while (found := left()) and (left_s := until - time.monotonic()) > 0:
        time.sleep(min(pause, left_s))
        pause = min(2 * pause, _PAUSES_S[1])
    return found
