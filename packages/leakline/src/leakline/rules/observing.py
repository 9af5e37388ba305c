"""`observe.*`: what the observation itself could not do. Notes: they say how far the rest may be trusted."""

from __future__ import annotations

from leakline.facts import Finding, Snapshot
from leakline.rules.observed import Observed

STOPPED = "observe.stopped"


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
            remedy="If it died of EMFILE, its log says `Too many open files`. Observe the next one from its start.",
            next="leakline NAME --for 30s",
            confidence="certain",
        )
    ]


def unreadable(observed: Observed) -> list[Finding]:
    """Parts of the process that could not be read."""
    seen = observed.end or observed.begin
    missing = list(dict.fromkeys(seen.unreadable)) if seen is not None else []
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
            remedy="Look as the owner of the process or as root, inside its own container.",
            next=f"sudo leakline {observed.pid}",
            confidence="certain",
        )
    ]


def stopped(observed: Observed) -> list[Finding]:
    """Every thread of the process was stopped when the observation began and when it ended."""
    if observed.ended or not (_stopped(observed.begin) and _stopped(observed.end)):
        return []
    return [
        Finding(
            id=STOPPED,
            severity="note",
            title=f"process {observed.pid} is stopped: nothing in it runs, so nothing can grow",
            count=observed.growth.total,
            per_second=0.0,
            evidence={"threads_stopped": len(observed.end.threads) if observed.end else 0},
            cause="It was sent SIGSTOP or SIGTSTP (Ctrl-Z), or a debugger holds it.",
            remedy=f"Let it go on (`kill -CONT {observed.pid}`, or `continue` in the debugger), then observe again.",
            next=f"leakline {observed.pid}",
            confidence="certain",
        )
    ]


def _stopped(seen: Snapshot | None) -> bool:
    return seen is not None and bool(seen.threads) and all(thread.state in "Tt" for thread in seen.threads)
