"""What a recording tells by itself: lines that open and do not close, wrong closes, the first EMFILE.

`recorded.growing`: a leak; `recorded.double-close`, `recorded.foreign-close`, `limit.exhausted`: warnings.
"""

from __future__ import annotations

from leakline.facts import Alive, Finding, Frame, WrongClosed, told
from leakline.rules.observed import Observed

LEAST = 8  # descriptors: fewer are a handful that a program may keep
KEPT_SHARE = 0.8  # of what a line opened is still open
STILL_OPENING_SHARE = 0.5  # the last one was opened in the last half of the recording

_CLOSE = "Close it on every path, also when an error is raised: `with`, try/finally, or an owner object."


def growing(observed: Observed) -> list[Finding]:
    """A finding for each line that keeps what it opens, once the process has ended: before, its growth is judged."""
    recorded = observed.recorded
    if recorded is None or not observed.ended:
        return []
    return [_growing(each, recorded.seconds) for each in recorded.alive if keeps(each, recorded.seconds)]


def keeps(alive: Alive, seconds: float) -> bool:
    """Whether a line opened many, closed next to none, and went on until the end: births without deaths."""
    origin = alive.origin
    if origin.count < LEAST or not origin.opened or origin.newest_s is None:
        return False
    return origin.count >= KEPT_SHARE * origin.opened and origin.newest_s <= (1 - STILL_OPENING_SHARE) * seconds


def _growing(alive: Alive, seconds: float) -> Finding:
    origin = alive.origin
    where = told(origin.frames[origin.headline])
    return Finding(
        id="recorded.growing",
        severity="leak",
        title=f"{where} opened {origin.opened} {alive.kind} descriptors and closed {origin.closed}",
        count=origin.count,
        per_second=round(origin.per_second or 0.0, 3),
        evidence={
            "opened": origin.opened,
            "closed": origin.closed,
            "open_at_the_end": origin.count,
            "seconds": round(seconds, 1),
            **({"failed_with": alive.errors} if alive.errors else {}),
        },
        cause="It opened them until the end, and closed next to none.",
        remedy=_CLOSE,
        harmless="It is a pool that was still filling when the program ended.",
        threshold=f"{LEAST} open at least, {KEPT_SHARE:.0%} of all that it opened, the last one in the second half",
        origins=(origin,),
    )


def wrong_closes(observed: Observed) -> list[Finding]:
    """One finding for each line that closed what was not its own."""
    recorded = observed.recorded
    return [] if recorded is None else [_wrong_close(each) for each in recorded.wrong_closes]


def _wrong_close(wrong: WrongClosed) -> Finding:
    evidence: dict[str, object] = {"closed by": _lines(wrong.closed_by)}
    if wrong.closed_before_by:
        evidence["closed before by"] = _lines(wrong.closed_before_by)
    if wrong.opened_by:
        evidence["opened by"] = _lines(wrong.opened_by)
    here = told(wrong.closed_by[0]) if wrong.closed_by else "an unknown line"
    if wrong.kind == "nothing-open":
        return Finding(
            id="recorded.double-close",
            severity="warning",
            title=f"{here} closed descriptor {wrong.number}, which was not open (EBADF)",
            count=wrong.count,
            per_second=0.0,
            evidence=evidence,
            cause="It was closed before. Between the two closes the number may be another thread's: the next time this"
            " close takes somebody else's descriptor away.",
            remedy="Let one owner close it, once; set the number to -1 after the close.",
            harmless="There is one thread, and nothing is opened between the two closes.",
            threshold="one close that failed with EBADF",
            confidence="certain",
        )
    owner = told(wrong.opened_by[0]) if wrong.opened_by else "somebody else"
    return Finding(
        id="recorded.foreign-close",
        severity="warning",
        title=f"{here} closed descriptor {wrong.number}, which {owner} had opened for itself",
        count=wrong.count,
        per_second=0.0,
        evidence=evidence,
        cause="The number was reused: whoever closed it had closed it before, or closes numbers that it does not own."
        " libzmq aborts the process when that happens to one of its own.",
        remedy="Close only what this code opened, once; never a range of numbers in a process that goes on.",
        threshold="one such close",
        confidence="certain",
    )


def exhausted(observed: Observed) -> list[Finding]:
    """The kernel refused a descriptor: when that was first met, and where."""
    recorded = observed.recorded
    if recorded is None or not recorded.exhausted:
        return []
    most = recorded.alive[0] if recorded.alive else None
    evidence: dict[str, object] = {"times": recorded.exhausted, "first met by": _lines(recorded.exhausted_at)}
    if most is not None:
        evidence["most are held by"] = [f"{most.origin.count} × {told(most.origin.frames[most.origin.headline])}"]
    return [
        Finding(
            id="limit.exhausted",
            severity="warning",
            title=f"{recorded.exhausted_error} was met {_times(recorded.exhausted)}: a descriptor was refused",
            count=recorded.exhausted,
            per_second=0.0,
            evidence=evidence,
            cause="The limit on open descriptors was reached. Whoever meets it first is seldom who holds them.",
            remedy="See which line holds the most; a higher limit (ulimit -n) only moves the end.",
            threshold="one refusal",
            confidence="certain",
        )
    ]


def _lines(frames: tuple[Frame, ...], shown: int = 4) -> list[str]:
    return [told(frame) for frame in frames[:shown]]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
