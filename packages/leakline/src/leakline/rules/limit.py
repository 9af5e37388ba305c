"""`limit.near`: the process stands close to its limit of descriptors without growing; a burst will meet EMFILE."""

from __future__ import annotations

from leakline.facts import Finding
from leakline.figures import grouped
from leakline.growth import NEAR_LIMIT
from leakline.rules.observed import Observed


def near(observed: Observed) -> list[Finding]:
    """At least `NEAR_LIMIT` of the limit in use. A leak says so itself, with the time that is left."""
    growth = observed.growth
    if growth.verdict == "leak" or growth.limit is None or growth.total < NEAR_LIMIT * growth.limit:
        return []
    free = max(0, growth.limit - growth.total)
    most = next(iter(observed.counts.items()), ("descriptor", growth.total))
    return [
        Finding(
            id="limit.near",
            severity="warning",
            title=f"{grouped(growth.total)} of {grouped(growth.limit)} descriptors in use, {grouped(free)} left",
            count=growth.total,
            per_second=0.0,
            evidence={"limit": growth.limit, "free": free, "most": {most[0]: most[1]}},
            cause="The number does not grow: either the limit is too small for the load, or a leak has run into it"
            " before this observation. At the limit open(), socket() and accept() fail with EMFILE; libzmq's"
            " listener then spins at 100 % CPU.",
            remedy="If this is the normal load, raise the limit: `ulimit -n`, systemd's LimitNOFILE=, or `prlimit"
            f" --pid {observed.pid} --nofile=4096:` at run time. If not, find what holds them.",
            harmless="The number is bounded by design below the limit.",
            next=f"leakline ls {observed.pid}",
            threshold=f"{NEAR_LIMIT:.0%} of the limit in use, without growth",
            confidence="certain",
        )
    ]
