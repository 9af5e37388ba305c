"""`growth.<kind>`: a kind of descriptor leaks; `growth.undecided`: one grows, but too little was seen to call it a
leak.
"""

from __future__ import annotations

from leakline.facts import Finding
from leakline.figures import rate_text
from leakline.growth import Trend, seconds_to
from leakline.rules.grouping import peer_of, top
from leakline.rules.kinds import OTHER, STORIES
from leakline.rules.observed import Observed
from leakline.rules.ruled_out import ruled_out
from leakline.rules.sorts import THRESHOLD, fresh_of


def growth_of_kinds(observed: Observed) -> list[Finding]:
    """One finding for each kind that leaks, fastest first."""
    return [_leak(observed, kind, trend) for kind, trend in observed.growth.leaks().items()]


def undecided(observed: Observed) -> list[Finding]:
    """One note, for all kinds that were seen too little of; none beside a leak, which is what matters then."""
    growth = observed.growth
    open_questions = {kind: trend for kind, trend in growth.trends.items() if trend.verdict == "unknown"}
    if not open_questions or growth.verdict == "leak":
        return []
    seconds = max((trend.observe_s or 0.0 for trend in open_questions.values()), default=0.0)
    rising = {kind: trend for kind, trend in open_questions.items() if trend.risen > 0}
    told = "; ".join(f"{kind} {trend.reason}" for kind, trend in rising.items())
    return [
        Finding(
            id="growth.undecided",
            severity="note",
            title=told or f"observed for {observed.seconds:.1f} s only",
            count=sum(trend.risen for trend in rising.values()),
            per_second=round(sum(trend.per_second for trend in rising.values()), 3),
            evidence={"risen": {kind: trend.risen for kind, trend in rising.items()}, "observe_seconds": seconds},
            cause="A leak this slow, a pool that is still filling and a warm-up look alike over so short a time.",
            remedy=(
                "The process is gone: observe the next one, from its start."
                if observed.ended
                else "Observe for longer."
            ),
            harmless="It is a few more than before and stays so.",
            next=f"leakline {'NAME' if observed.ended else observed.pid} --for {seconds:.0f}s",
            threshold=THRESHOLD,
            confidence="possible",
        )
    ]


def _leak(observed: Observed, kind: str, trend: Trend) -> Finding:
    growth = observed.growth
    left = seconds_to(growth.limit, growth.total, trend.per_second)
    evidence: dict[str, object] = {
        "risen": trend.risen,
        "seconds": round(growth.at - (trend.since or growth.at), 1),
        "deepest_fall": trend.drawdown,
        "limit": growth.limit,
        "seconds_to_limit": None if left is None else round(left, 1),
    }
    story = STORIES.get(kind, OTHER)
    fresh = fresh_of(observed, kind)
    if fresh:
        evidence["opened_meanwhile"] = top(peer_of(each) for each in fresh)
    return Finding(
        id=f"growth.{kind}",
        severity="leak",
        title=f"{kind} descriptors leak: {rate_text(trend.per_second)}",
        count=observed.counts.get(kind, 0),
        per_second=round(trend.per_second, 3),
        evidence=evidence,
        cause=story.cause,
        remedy=story.remedy,
        harmless=story.harmless,
        next=f"leakline diff {observed.pid}",
        threshold=THRESHOLD,
        ruled_out=ruled_out(observed) if any(each.socket for each in fresh) else {},
    )
