"""What else the sockets of a process could be, with figures: the list that one would go through by hand with ss, lsof
and netstat. Pure.
"""

from __future__ import annotations

from collections import Counter

from leakline.rules.grouping import address, new_since
from leakline.rules.observed import Observed
from leakline.rules.sorts import ACCEPTED, CLOSE_WAIT, LISTENERS, NEVER_BOUND, OUTGOING, held, sort_of

RULED_OUT_SHARE = 0.2  # of the sockets that were opened meanwhile
_NAMES = {
    LISTENERS: "listeners",
    ACCEPTED: "accepted",
    OUTGOING: "outgoing",
    CLOSE_WAIT: "CLOSE_WAIT",
    NEVER_BOUND: "never bound",
}


def ruled_out(observed: Observed, but: str = "") -> dict[str, object]:
    """By sort of socket: how many are held, and how many of them were opened meanwhile. `but`: the sort that it is;
    what a good part of the new ones are is left out, too, as nothing rules it out.

    Outgoing ones also by the remote that has most. Empty where nobody has looked at the whole process.
    """
    if observed.begin is None or observed.end is None:
        return {}
    fresh = new_since(observed.begin, observed.end)
    all_of, new_of = held(observed), Counter(sort_of(each) for each in fresh)
    sockets = sum(each.socket is not None for each in fresh)
    found: dict[str, object] = {}
    for sort, name in _NAMES.items():
        if sort != but and new_of[sort] <= RULED_OUT_SHARE * sockets:
            found[name] = {"held": all_of[sort], "opened meanwhile": new_of[sort]}
    if "outgoing" in found and all_of[OUTGOING]:
        found["outgoing"] = {**_figures(found["outgoing"]), **_most_remote(observed)}
    if observed.closely.time_wait is not None:
        found["TIME_WAIT"] = observed.closely.time_wait.total
    if observed.closely.relatives is not None:
        found["also held by a parent, child or sibling"] = _inherited(observed)
        if observed.closely.incomplete:
            found["not looked at"] = "; ".join(observed.closely.incomplete)
    return found


def _inherited(observed: Observed) -> int:
    sockets = {each.number for each in (observed.end.descriptors if observed.end else ()) if each.socket is not None}
    return len({n for relative in observed.closely.relatives or () for n in relative.shared if n in sockets})


def _figures(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _most_remote(observed: Observed) -> dict[str, object]:
    remotes = Counter(
        address(each.socket.remote)
        for each in (observed.end.descriptors if observed.end else ())
        if sort_of(each) == OUTGOING and each.socket is not None and each.socket.remote is not None
    )
    return {f"to {remote}": count for remote, count in remotes.most_common(1)}
