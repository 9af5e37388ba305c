"""`fork.shared` and `fork.port-kept`: descriptors that a fork has copied, and a port that a child keeps busy. Pure.

A listener that workers accept from is shared on purpose, pipes and socket pairs to children are, and so are files and
standard streams. What is never meant: two processes with one TCP connection. While either holds it the peer sees no
end of it, and what both read or write is mixed.
"""

from __future__ import annotations

from collections.abc import Iterable

from leakline.durations import in_words
from leakline.facts import Descriptor, Finding, Relative
from leakline.rules.grouping import peer_of, top
from leakline.rules.observed import Observed

SHARED, PORT_KEPT = "fork.shared", "fork.port-kept"
_OTHER_END = ("outgoing", "accepted")
_HANDED_OVER_S = 2.0  # a server that forks for each connection closes its own copy when it has its turn again
_REMEDY = (
    "In this order: make connections after the fork, in the child; else close them in the child first thing"
    " (`os.register_at_fork(after_in_child=client.close_descriptors)`); where a program is started, let none through:"
    " subprocess's close_fds=True (the default), SOCK_CLOEXEC in C. What must fork late is started from a process that"
    " never connects."
)


def shared(observed: Observed) -> list[Finding]:
    """TCP connections that a parent, child or sibling holds as well."""
    connected = {each.number: each for each in _sockets(observed) if each.socket and each.socket.role in _OTHER_END}
    lasting = [each for each in observed.closely.relatives or () if not _just_forked(each)]
    holders = [(each, [n for n in each.shared if n in connected]) for each in lasting]
    holders = [(relative, numbers) for relative, numbers in holders if numbers]
    if not holders:
        return []
    numbers = sorted({number for _, each in holders for number in each})
    youngest = min(relative.age_s for relative, _ in holders)
    bare = [number for number in numbers if connected[number].close_on_exec is False]
    return [
        Finding(
            id=SHARED,
            severity="warning",
            title=f"{len(numbers)} TCP connections are also held by {_names(relative for relative, _ in holders)}",
            count=len(numbers),
            per_second=0.0,
            evidence={
                "holder": [_holder(relative, len(each)) for relative, each in holders[:5]],
                "connections": top(peer_of(connected[number]) for number in numbers),
                "since_seconds": youngest,
                **({"without close-on-exec": len(bare)} if bare else {}),
            },
            cause="The process forked while they were open, and the child (or the parent) did not close its copy. A"
            " connection ends for the peer only when the last copy is closed: until then it stays in CLOSE_WAIT or"
            " ESTABLISHED here, and the peer waits. If both use it, their bytes are mixed.",
            remedy=_REMEDY,
            harmless="One of the two only hands it over and closes it soon.",
            next=f"leakline ls {holders[0][0].pid}",
            threshold="one TCP connection under the same number in both, other than 0 to 2, for"
            f" {_HANDED_OVER_S:g} s at least",
            confidence="certain" if all(relative.confirmed for relative, _ in holders) else "likely",
            ruled_out={"two of the same": "kcmp: one file" if holders[0][0].confirmed else "their inode is one"},
        )
    ]


def port_kept(observed: Observed) -> list[Finding]:
    """Listeners that a relative holds and never takes a connection from, while the other one does; or that are held by
    this process alone, which stood still all the while.
    """
    listeners = {each.number: each for each in _sockets(observed) if each.socket and each.socket.role == "listener"}
    mine = observed.closely.waits_on
    idle = [each for each in observed.closely.relatives or () if _keeps(each, mine, frozenset(listeners))]
    numbers = sorted({number for each in idle for number in each.shared if number in listeners})
    if not idle or not numbers:
        return []
    where = top(peer_of(listeners[number]).removeprefix("listening on ") for number in numbers)
    other = next(iter(idle))
    return [
        Finding(
            id=PORT_KEPT,
            severity="warning",
            title=f"{', '.join(list(where)[:3])}: {_names(idle)} keeps the port busy and takes no connection",
            count=len(numbers),
            per_second=0.0,
            evidence={
                "holder": [_holder(each, len(each.shared)) for each in idle[:5]],
                "listening on": where,
                "since_seconds": min(each.age_s for each in idle),
            },
            cause="The child inherited the listening socket. When this process ends or starts anew, the port stays in"
            " LISTEN: bind() fails with `Address already in use`, and clients that connect wait for an answer that"
            " nobody gives.",
            remedy="Close the listener in the child first thing, or fork before it is made; start programs with"
            " subprocess's close_fds=True (its default), or SOCK_CLOEXEC in C. For now: end the child"
            " before the restart.",
            harmless="The child is about to accept, as a worker that is busy with one request.",
            next=f"leakline ls {other.pid}",
            threshold="one listener that this process takes connections from, and the other one does not",
            confidence="certain" if other.confirmed and not other.same_program else "likely",
        )
    ]


def _just_forked(relative: Relative) -> bool:
    """Whether what it shares may be about to be closed. A parent's age says nothing of how long it has shared."""
    return relative.relation != "parent" and relative.age_s < _HANDED_OVER_S


def _keeps(relative: Relative, mine: tuple[int, ...] | None, listeners: frozenset[int]) -> bool:
    held = listeners.intersection(relative.shared)
    if not held or relative.relation != "child":
        return False
    if not relative.same_program:  # it was started, and knows nothing of the number
        return relative.waits_on == ()
    return mine is not None and bool(held.intersection(mine)) and relative.waits_on == ()


def _sockets(observed: Observed) -> list[Descriptor]:
    seen = observed.end
    return [each for each in seen.descriptors if each.kind == "tcp" and each.number > 2] if seen is not None else []


def _names(relatives: Iterable[Relative]) -> str:
    named = list(relatives)
    first = f"{named[0].relation} {named[0].pid}"
    return first if len(named) == 1 else f"{first} and {len(named) - 1} more"


def _holder(relative: Relative, count: int) -> str:
    return (
        f"{relative.relation} {relative.pid} ({relative.command[:60]}): {count}, since it was started"
        f" {in_words(relative.age_s)} ago"
    )
