"""What is wrong, and why: facts in, findings out. One family of findings a file; docs/findings.md describes each id.

Rules are pure: no I/O and no clock. Each is a function `(Observed) -> list[Finding]`, listed in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from leakline.facts import Finding
from leakline.rules import (
    dead_ends,
    fork,
    growing,
    limit,
    observing,
    piling_up,
    python_objects,
    recorded,
    sockets,
    sorts,
    spinning,
    stuck,
    tables,
    tcp,
    zeromq,
    zeromq_use,
)
from leakline.rules.observed import Observed

RULES: tuple[Callable[[Observed], list[Finding]], ...] = (
    zeromq.blocked_threads,
    zeromq.max_sockets,
    zeromq_use.monitor_unread,
    zeromq_use.socket_per_request,
    piling_up.piling_up,
    growing.growth_of_kinds,
    python_objects.python_objects,
    recorded.growing,
    spinning.accept_spin,
    limit.near,
    limit.exhausted,
    recorded.wrong_closes,
    sockets.close_wait,
    sockets.never_bound,
    dead_ends.dead_pipes,
    dead_ends.dead_pidfds,
    dead_ends.deleted_files,
    tcp.half_open,
    stuck.stuck,
    fork.shared,
    fork.port_kept,
    tcp.time_wait,
    tables.not_in_tables,
    growing.undecided,
    observing.ended,
    observing.stopped,
    observing.unreadable,
)
ORIGINS_SHOWN = 5  # in one finding
LEAST_SHARE = 0.05  # of what the largest origin has
_OF_CLOSED_SOCKETS = (sorts.LISTENERS, sorts.ACCEPTED, sorts.OUTGOING, sorts.CLOSE_WAIT)
_ORDER = {"leak": 0, "warning": 1, "note": 2}


def diagnose(observed: Observed) -> tuple[Finding, ...]:
    """Every finding about one observed process, gravest first.

    A blocked ZeroMQ thread explains the eventfds that pile up beside it, and sockets in a bad state the growth of
    their kind: each is told once, in the finding that says more.
    """
    findings = [finding for rule in RULES for finding in rule(observed)]
    if observed.recorded is not None and observed.ended:  # its own end is told by the recording, and what it kept
        findings = [finding for finding in findings if finding.id not in ("growth.undecided", "observe.ended")]
    explained = {kind for finding in findings for kind in _explains(finding, observed)}
    blocked = {kind for finding in findings if finding.id in zeromq.BLOCKED for kind in _explains(finding, observed)}
    findings = [
        _with_origins(finding, observed)
        for finding in findings
        if finding.id.removeprefix("growth.") not in explained and not _is_of(finding, blocked, observed)
    ]
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))


def _explains(finding: Finding, observed: Observed) -> Iterable[str]:
    if finding.severity != "leak":
        return ()
    return zeromq.kept_by_blocked(observed) if finding.id in zeromq.BLOCKED else sorts.growing_by(observed, finding.id)


def _is_of(finding: Finding, blocked: set[str], observed: Observed) -> bool:
    """Whether connections and listeners pile up as sockets are not reaped: they are in the evidence of that."""
    kinds = sorts.growing_by(observed, finding.id) if finding.id in _OF_CLOSED_SOCKETS else ()
    return bool(kinds) and blocked >= set(kinds)


def _with_origins(finding: Finding, observed: Observed) -> Finding:
    """The lines that opened what a finding is about, if they were recorded, most first."""
    if observed.recorded is None or finding.origins or finding.severity == "note":
        return finding
    kinds = (*_explains(finding, observed), finding.id.removeprefix("growth."))
    found = [alive.origin for alive in observed.recorded.alive if alive.kind in kinds]
    largest = max((origin.count for origin in found), default=0)
    worth = [origin for origin in found if origin.count >= LEAST_SHARE * largest]
    return msgspec.structs.replace(finding, origins=tuple(worth[:ORIGINS_SHOWN]))
