"""`growth.<kind>`: a kind of descriptor leaks; `growth.undecided`: one grows, but too little was seen to call it a
leak.
"""

from __future__ import annotations

from leakline.facts import Descriptor, Finding
from leakline.growth import DRAWDOWN_FACTOR, MIN_RISES, MIN_SPAN_S, Trend, seconds_to
from leakline.rules.grouping import new_since, peer_of, top
from leakline.rules.observed import Observed

THRESHOLD = (
    f"{MIN_SPAN_S:.0f} s and {MIN_RISES} rises at least, upward, {DRAWDOWN_FACTOR:.0f} times what it ever fell, and"
    " going on"
)
_CAUSES = {
    "tcp": "Connections (or accepted ones) are opened and not closed: a client made per request, an error path without"
    " close(), a pool without a bound.",
    "udp": "A datagram socket is made per message or per lookup and not closed.",
    "unix": "Local sockets are opened and not closed: a socketpair per task, a connection to a local daemon per"
    " request.",
    "socket": "Sockets are made and neither bound nor connected, nor closed: most often an error path.",
    "eventfd": "Objects that own an eventfd are made and not destroyed: an event loop or a ZeroMQ socket per request,"
    " or a ZeroMQ socket that was closed but that libzmq cannot reap.",
    "epoll": "An event loop or a selector is made per request and not closed.",
    "pipe": "Pipes are opened and not closed: a child process per task whose streams nobody closes, or a self-pipe"
    " each.",
    "file": "Files are opened and not closed.",
    "directory": "Directories are opened and not closed: os.scandir() without `with`, opendir() without closedir().",
    "inotify": "A file watcher is made per use and not closed; there is also a limit per user (max_user_instances,"
    " 128).",
    "timerfd": "Timers are made and not closed.",
    "pidfd": "A handle per child process is opened and not closed after the child was waited for.",
    "memfd": "Shared memory is made and not closed.",
    "pty": "Terminals are opened for children and not closed after these have ended.",
}


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
    fresh = _fresh(observed, kind)
    if fresh:
        evidence["opened_meanwhile"] = top(peer_of(each) for each in fresh)
    return Finding(
        id=f"growth.{kind}",
        severity="leak",
        title=f"{kind} descriptors leak: {rate_text(trend.per_second)}",
        count=observed.counts.get(kind, 0),
        per_second=round(trend.per_second, 3),
        evidence=evidence,
        cause=_CAUSES.get(kind, "They are opened and not closed."),
        remedy="Give each one an owner that closes it on every path, also when an error is raised.",
        harmless="A pool or a cache is still filling: observe for longer than it takes to fill.",
        next=f"leakline diff {observed.pid}",
        threshold=THRESHOLD,
    )


def _fresh(observed: Observed, kind: str) -> list[Descriptor]:
    if observed.begin is None or observed.end is None:
        return []
    return [each for each in new_since(observed.begin, observed.end) if each.kind == kind]


def rate_text(per_second: float) -> str:
    """`97 per second`, `4.2 per second`, `18 per minute`, `3 per hour`: a unit in which the number is at least 1."""
    for factor, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if per_second * factor >= 0.95 or unit == "hour":
            number = per_second * factor
            return f"{number:.0f} per {unit}" if number >= 9.95 else f"{number:.1f} per {unit}"
    raise AssertionError("the loop always returns at its last unit")
