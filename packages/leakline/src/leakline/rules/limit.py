"""`limit.near` and `limit.exhausted`: the process stands close to its limit of descriptors, or met it."""

from __future__ import annotations

from leakline.facts import Finding, Recorded, told
from leakline.figures import grouped
from leakline.growth import NEAR_LIMIT
from leakline.rules.observed import Observed
from leakline.rules.recorded import lines_of, times

_RAISE = "`ulimit -n`, systemd's LimitNOFILE=, or `prlimit --pid {pid} --nofile={more}:` at run time"


def near(observed: Observed) -> list[Finding]:
    """At least `NEAR_LIMIT` of the limit in use. A leak says so itself, with the time that is left."""
    growth = observed.growth
    if growth.verdict == "leak" or growth.limit is None or growth.total < NEAR_LIMIT * growth.limit:
        return []
    if growth.total >= growth.limit:  # exhausted
        return []
    free = max(0, growth.limit - growth.total)
    return [
        Finding(
            id="limit.near",
            severity="warning",
            title=f"{grouped(growth.total)} of {grouped(growth.limit)} descriptors in use, {grouped(free)} left",
            count=growth.total,
            per_second=0.0,
            evidence={**_limits(observed), "free": free, **_most(observed)},
            cause="The number does not grow: either the limit is too small for the load, or a leak has run into it"
            " before this observation. At the limit open(), socket() and accept() fail with EMFILE; libzmq's"
            " listener then spins at 100 % CPU.",
            remedy=f"If this is the normal load, raise the limit: {_raise(observed)}. If not, find what holds them.",
            harmless="The number is bounded by design below the limit.",
            next=f"leakline ls {observed.pid}",
            threshold=f"{NEAR_LIMIT:.0%} of the limit in use, without growth",
            confidence="certain",
        )
    ]


def exhausted(observed: Observed) -> list[Finding]:
    """No descriptor is left at the end, or the recording saw the kernel refuse one: when that was first met, where."""
    recorded, growth = observed.recorded, observed.growth
    refused = recorded.exhausted if recorded is not None else 0
    full = growth.limit is not None and growth.total >= growth.limit and not observed.ended
    if not refused and not full:
        return []
    if recorded is not None and refused:
        title = f"{recorded.exhausted_error} was met {times(refused)}: a descriptor was refused"
    else:
        title = f"no descriptor is left: {grouped(growth.total)} of {grouped(growth.limit or 0)} in use"
    return [
        Finding(
            id="limit.exhausted",
            severity="warning",
            title=title,
            count=refused or growth.total,
            per_second=0.0,
            evidence={**_limits(observed), **_refusals(recorded), **_most(observed)},
            cause="The limit on open descriptors is reached: open(), socket(), accept() and pipe() fail with EMFILE,"
            " `Too many open files`. Whoever meets it first is seldom who holds them.",
            remedy="Find what holds the most, by kind and line, and close it. To gain time, raise the limit:"
            f" {_raise(observed)}.",
            harmless="The program was made to live at its limit, and sheds load there.",
            next=f"leakline ls {observed.pid}",
            threshold="one refusal, or as many descriptors as the limit allows",
            confidence="certain",
        )
    ]


def _refusals(recorded: Recorded | None) -> dict[str, object]:
    if recorded is None or not recorded.exhausted:
        return {}
    evidence: dict[str, object] = {"times": recorded.exhausted, "first met by": lines_of(recorded.exhausted_at)}
    if recorded.alive:
        most = recorded.alive[0].origin
        evidence["most are held by"] = [f"{most.count} × {told(most.frames[most.headline])}"]
    return evidence


def _limits(observed: Observed) -> dict[str, object]:
    # A soft limit below the hard one is no fault; it is what makes the remedy a command.
    limits = observed.end.limits if observed.end is not None else None
    if limits is None:
        return {} if observed.growth.limit is None else {"limit": observed.growth.limit}
    return {"limit": observed.growth.limit, "hard_limit": limits.hard}


def _most(observed: Observed) -> dict[str, object]:
    return {"most": dict(list(observed.counts.items())[:3])} if observed.counts else {}


def _raise(observed: Observed) -> str:
    limits = observed.end.limits if observed.end is not None else None
    soft = observed.growth.limit or 1024
    return _RAISE.format(pid=observed.pid, more=min(4 * soft, limits.hard) if limits and limits.hard > soft else 4096)
