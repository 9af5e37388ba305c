"""`observe.*`: what the observation itself could not do. Notes: they say how far the rest may be trusted."""

from __future__ import annotations

from leakline.facts import Finding
from leakline.rules.grouping import lasting
from leakline.rules.observed import Observed


def ended(observed: Observed) -> list[Finding]:
    """The process ended before the observation did."""
    if not observed.ended:
        return []
    return [
        Finding(
            id="observe.ended",
            severity="note",
            title=f"process {observed.pid} ended after {observed.seconds:.1f} s of observation",
            count=observed.growth.total,
            per_second=0.0,
            evidence={"seconds": round(observed.seconds, 3), "last_total": observed.growth.total},
            cause="The process is gone; what is reported is what was seen until then.",
            remedy="If it died of EMFILE, its log says `Too many open files`. Observe the next one from its start:"
            " leakline NAME --for 30s",
        )
    ]


def unreadable(observed: Observed) -> list[Finding]:
    """Parts of the process that could not be read."""
    seen = observed.end or observed.begin
    told = dict.fromkeys(seen.unreadable) if seen is not None else {}
    # A socket that is closed while the tables are read is in none of them: no cause for a note, unless it lasts.
    missing = [what for what in told if "sockets" not in what or _unknown_sockets(observed)]
    if not missing:
        return []
    return [
        Finding(
            id="observe.unreadable",
            severity="note",
            title="not everything could be read: " + "; ".join(missing[:3]),
            count=len(missing),
            per_second=0.0,
            evidence={"unreadable": missing},
            cause="The kernel did not show these parts, so findings that need them cannot appear.",
            remedy="Look as the owner of the process or as root, inside its own container. Next: sudo leakline"
            f" {observed.pid}",
        )
    ]


def _unknown_sockets(observed: Observed) -> bool:
    if observed.begin is None or observed.end is None:
        return True
    kept = lasting(observed.begin, observed.end)
    return any(each.socket is not None and each.socket.role == "unknown" for each in kept)
