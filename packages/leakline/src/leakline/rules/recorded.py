"""What a recording tells by itself: lines that open and do not close, and wrong closes.

`recorded.growing`: a leak; `recorded.double-close`, `recorded.foreign-close`, `zmq.foreign-close`: warnings.
"""

from __future__ import annotations

from leakline.facts import Alive, Finding, Frame, Recorded, WrongClosed, told
from leakline.rules.observed import Observed

LEAST = 8  # descriptors: fewer are a handful that a program may keep
KEPT_SHARE = 0.8  # of what a line opened is still open
RECENT_SHARE = 0.25  # of what is open was opened in the second half of the recording: a pool that is filled is not
GOING_ON_SHARE = 0.2  # of the time from the first one to the end, the line was opening: a start's burst is over at once
REPEATED = 3  # by each call path on the average: a start opens once from each place (a pipe makes two)
MANY = 100  # so many are no start's, from however many call paths
ENDING_S = 0.15  # an interpreter's own end takes so long: what was opened right before it was opened until the end

ZMQ_FOREIGN_CLOSE = "zmq.foreign-close"
_FOREIGN_CAUSE = (
    "The number was reused: whoever closed it had closed it before, or closes numbers that it does not own."
)
_ZMQ_CAUSE = (
    " libzmq's next call on it fails with EBADF, or reaches what was opened under that number since: then it aborts the"
    " process (`Bad file descriptor (src/epoll.cpp:…)`), at once or at its end."
)
_CLOSE = "Close it on every path, also when an error is raised: `with`, try/finally, or an owner object."


def growing(observed: Observed) -> list[Finding]:
    """A finding for each line that keeps what it opens, once the process has ended: before, its growth is judged."""
    recorded = observed.recorded
    if recorded is None or not observed.ended:
        return []
    return [_growing(each, recorded.seconds) for each in recorded.alive if keeps(each, recorded)]


def keeps(alive: Alive, recorded: Recorded) -> bool:
    """Whether a line opened many, again and again, closed next to none, and went on: births without deaths. What a
    start opens from here and there, or one loop at once, is no leak, unless the loop ended with the program, or for
    want of descriptors.
    """
    origin = alive.origin
    if origin.count < LEAST or not origin.opened or origin.newest_s is None or origin.oldest_s is None:
        return False
    if origin.count < min(REPEATED * origin.stacks, MANY):
        return False
    kept = origin.count >= KEPT_SHARE * origin.opened and alive.recent >= RECENT_SHARE * origin.count
    opening_s = origin.oldest_s - origin.newest_s
    going_on = opening_s >= GOING_ON_SHARE * (min(origin.oldest_s, recorded.seconds) - ENDING_S)
    return kept and (going_on or recorded.exhausted > 0)


def _growing(alive: Alive, seconds: float) -> Finding:
    origin = alive.origin
    where = told(origin.frames[origin.headline])
    kind = "" if alive.kind == "descriptor" else f"{alive.kind} "  # of a process that is gone, it may not be known
    return Finding(
        id="recorded.growing",
        severity="leak",
        title=f"{where} opened {origin.opened} {kind}descriptors and closed {origin.closed}",
        count=origin.count,
        per_second=round(origin.per_second or 0.0, 3),
        evidence={
            "opened": origin.opened,
            "closed": origin.closed,
            "open_at_the_end": origin.count,
            "in_the_second_half": alive.recent,
            "seconds": round(seconds, 1),
            **({"failed_with": alive.errors} if alive.errors else {}),
        },
        cause="It went on opening them, and closed next to none.",
        remedy=_CLOSE,
        harmless="It is a pool that was still filling when the program ended.",
        threshold=f"{LEAST} open at least, {KEPT_SHARE:.0%} of all that it opened, {REPEATED} by each call path (or"
        f" {MANY}), {RECENT_SHARE:.0%} in the second half, over {GOING_ON_SHARE:.0%} of the time since the first",
        origins=(origin,),
    )


def wrong_closes(observed: Observed) -> list[Finding]:
    """One finding for each line that closed what was not its own, however many descriptors those were."""
    groups: dict[tuple[str, Frame | None], list[WrongClosed]] = {}
    for wrong in observed.recorded.wrong_closes if observed.recorded is not None else ():
        blamed = _blamed(wrong)
        groups.setdefault((wrong.kind, blamed[0] if blamed else None), []).append(wrong)
    return [_wrong_close(sorted(group, key=lambda wrong: wrong.number)) for group in groups.values()]


def _wrong_close(group: list[WrongClosed]) -> Finding:
    """The story of the first of them, and the numbers of all."""
    wrong = group[0]
    blamed = _blamed(wrong)
    here = told(blamed[0]) if blamed else "an unknown line"
    numbers = ", ".join(str(number) for number in sorted({each.number for each in group}))
    what = f"descriptor {numbers}" if len(group) == 1 else f"descriptors {numbers}"
    if wrong.kind == "nothing-open":
        return Finding(
            id="recorded.double-close",
            severity="warning",
            title=f"{here} closed {what}, which {_were(group)} not open (EBADF)",
            count=sum(each.count for each in group),
            per_second=0.0,
            evidence=_closes(wrong),
            cause="It was closed before. Between the two closes the number may be another thread's: the next time this"
            " close takes somebody else's descriptor away.",
            remedy="Let one owner close it, once; set the number to -1 after the close.",
            harmless="There is one thread, and nothing is opened between the two closes.",
            threshold="one close that failed with EBADF",
            confidence="certain",
        )
    zmq = wrong.kind == "library-owner"  # the recorder marks those of libzmq alone
    owner = "libzmq" if zmq else told(wrong.opened_by[0]) if wrong.opened_by else "somebody else"
    return Finding(
        id=ZMQ_FOREIGN_CLOSE if zmq else "recorded.foreign-close",
        severity="warning",
        title=f"{here} closed {what}, which {owner} had opened for itself",
        count=sum(each.count for each in group),
        per_second=0.0,
        evidence=_closes(wrong),
        cause=_FOREIGN_CAUSE + (_ZMQ_CAUSE if zmq else ""),
        remedy="Close only what this code opened, once; never a range of numbers in a process that goes on."
        + (" A child closes numbers after the fork, before it uses ZeroMQ, and never in the parent." if zmq else ""),
        harmless="Never: the number may be anybody's by then.",
        threshold="one such close",
        confidence="certain",
    )


def _blamed(wrong: WrongClosed) -> tuple[Frame, ...]:
    """Who closed what was not his. An owner finds his descriptor gone at his own close: it was the close before."""
    return wrong.closed_before_by if wrong.kind == "other-owner" and wrong.closed_before_by else wrong.closed_by


def _were(group: list[WrongClosed]) -> str:
    return "was" if len(group) == 1 else "were"


def _closes(wrong: WrongClosed) -> dict[str, object]:
    if _blamed(wrong) is wrong.closed_by:
        stacks = {
            "closed by": wrong.closed_by,
            "closed before by": wrong.closed_before_by,
            "opened by": wrong.opened_by,
        }
    else:
        stacks = {"closed by": wrong.closed_before_by, "opened by": wrong.opened_by, "found gone by": wrong.closed_by}
    return {name: lines_of(frames) for name, frames in stacks.items() if frames or name == "closed by"}


def lines_of(frames: tuple[Frame, ...], shown: int = 4) -> list[str]:
    """The innermost frames of a stack, a line each."""
    return [told(frame) for frame in frames[:shown]]


def times(count: int) -> str:
    """`once`, `3 times`."""
    return "once" if count == 1 else f"{count} times"
