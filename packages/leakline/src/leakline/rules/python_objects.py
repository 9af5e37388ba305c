"""`python.lost`, `python.retained`, `python.waiting-for-gc`: which object keeps the descriptors that pile up, where a
Python process could be looked at from inside. Pure. They stand beside the finding about the growth, and say whose it
is.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from leakline.facts import Finding, PythonHolder
from leakline.rules.grouping import top
from leakline.rules.observed import Observed
from leakline.rules.sorts import fresh_of

LOST, RETAINED, GARBAGE = "python.lost", "python.retained", "python.waiting-for-gc"
MIN_WITHOUT_GROWTH = 10


class _State(msgspec.Struct, frozen=True):
    id: str
    title: str
    cause: str
    remedy: str
    harmless: str
    without_growth: Literal["warning", "note"] | None  # its severity there; None: not told


_STATES = {
    "lost": _State(
        LOST,
        "{count} descriptors belong to no Python object any more",
        "A bare number was opened (os.open, os.dup, os.pipe, socket.detach()) and forgotten, or a C library holds it:"
        " no garbage collection will ever close it.",
        "Wrap a number at once in an object that owns it (`os.fdopen(number)`, `socket.socket(fileno=number)`), or"
        " close it in `finally:`.",
        "A C extension owns them, and closes them itself.",
        "warning",
    ),
    "retained": _State(
        RETAINED,
        "{count} descriptors are kept by objects that the program can reach, most by {most}",
        "Something long-lived refers to the objects, so nothing closes them: a list or a cache without a bound, a"
        " global, a registry of callbacks, a traceback that is kept.",
        "Close each one when its use ends (`with`, `contextlib.closing`), and take it out of what holds it; bound the"
        " cache and close what it drops.",
        "A pool or a cache that still fills up to its bound.",
        None,
    ),
    "garbage": _State(
        GARBAGE,
        "{count} descriptors wait for the garbage collector, most in {most}",
        "Only a cycle of references holds the objects: they are closed when the cyclic collector comes by, which may be"
        " minutes, or never with gc.disable(). Exceptions that are kept with their traceback make such cycles.",
        "Close them by hand (`with`), or break the cycle (weakref, `del error` at the end of the handler). Do not rely"
        " on __del__.",
        "The collector runs often enough: the count then falls again and again.",
        "note",
    ),
}


def python_objects(observed: Observed) -> list[Finding]:
    """A finding for each state that a majority of what leaks is in; without a leak, for many that nobody will close."""
    if observed.python is None:
        return []
    leaking = {each.number for kind in observed.growth.leaks() for each in fresh_of(observed, kind)}
    if observed.python.incomplete:  # most of those that were looked at
        leaking &= {each.number for each in observed.python.holders}
    found = []
    for state, told in _STATES.items():
        of_state = [each for each in observed.python.holders if each.state == state]
        of_leak = [each for each in of_state if each.number in leaking]
        if leaking and 2 * len(of_leak) > len(leaking):
            found.append(_finding(observed, told, of_leak, "warning"))
        elif not leaking and told.without_growth and len(of_state) >= MIN_WITHOUT_GROWTH:
            found.append(_finding(observed, told, of_state, told.without_growth))
    return found


def _finding(
    observed: Observed, told: _State, holders: list[PythonHolder], severity: Literal["warning", "note"]
) -> Finding:
    chains = top(" ← ".join((each.type, *each.chain)) for each in holders if each.type)
    return Finding(
        id=told.id,
        severity=severity,
        title=told.title.format(count=len(holders), most=next(iter(chains), "?")),
        count=len(holders),
        per_second=0.0,
        evidence={
            **({"held by": chains} if chains else {}),
            **(
                {"not looked at": list(observed.python.incomplete)}
                if observed.python and observed.python.incomplete
                else {}
            ),
        },
        cause=told.cause,
        remedy=told.remedy,
        harmless=told.harmless,
        next=f"leakline ls {observed.pid}",
        threshold=f"most of what leaks; without a leak, {MIN_WITHOUT_GROWTH} of them",
        confidence="certain" if observed.python is not None and not observed.python.incomplete else "likely",
    )
