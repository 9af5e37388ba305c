"""What was left open since a moment: waits a little for what is closed late. `leaks` says what each is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from gc import collect
from time import sleep

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
    collect()
    found = left()
    for pause_s in _pauses(grace_s):
        if not found:
            break
        sleep(pause_s)
        found = left()
    return found


def _pauses(grace_s: float) -> Iterator[float]:
    """Pauses, longer and longer, of so many seconds together. No clock is asked: a test may have stopped it."""
    pause_s, longest_s = _PAUSES_S
    while grace_s > 0:
        yield min(pause_s, grace_s)
        grace_s -= pause_s
        pause_s = min(2 * pause_s, longest_s)
