"""`limit.accept-spin`: at the limit of descriptors a listener has connections waiting, accept() fails with EMFILE, and
the loop comes back to it at once: a core is used up by nothing. Pure.
"""

from __future__ import annotations

from leakline.facts import Finding, Thread
from leakline.figures import grouped
from leakline.rules.grouping import address
from leakline.rules.observed import Observed
from leakline.rules.standstill import role_of

ACCEPT_SPIN = "limit.accept-spin"
MIN_SHARE = 0.5  # of the observation, one thread runs, or waits for a CPU on a busy machine: it does not sleep
MIN_SECONDS = 2.0


def accept_spin(observed: Observed) -> list[Finding]:
    """No descriptor left, a listener with connections that nobody accepts, and a thread that never sleeps."""
    begin, end = observed.begin, observed.end
    if begin is None or end is None or end.limits is None or end.at - begin.at < MIN_SECONDS:
        return []
    listeners = [each.socket for each in end.descriptors if each.socket is not None and each.socket.role == "listener"]
    waiting = {address(each.local): each.receive_queue for each in listeners if each.local and each.receive_queue}
    busy = _busy(begin.threads, end.threads, end.at - begin.at)
    if end.total < end.limits.soft or not waiting or not busy:
        return []
    most = max(busy, key=lambda thread: thread.cpu_seconds or 0.0)
    of_zmq = role_of(most.name) == "io"
    return [
        Finding(
            id=ACCEPT_SPIN,
            severity="warning",
            title=f"thread {most.name} spins: no descriptor is left to accept a connection on {next(iter(waiting))}",
            count=end.total,
            per_second=0.0,
            evidence={
                "limit": end.limits.soft,
                "connections that wait": waiting,
                "never asleep": [f"thread {each.tid} {each.name}: {part}" for each, part in busy.items()],
            },
            cause="accept() fails with EMFILE, the connection stays in the listener's queue, and poll or epoll reports"
            " it again at once."
            + (" libzmq's listener does this in the I/O thread, which also moves all messages." if of_zmq else ""),
            remedy="Stop listening before the limit (close the listener, or take it out of the poll set for a while)"
            " and come back when descriptors are free; keep one descriptor in reserve, to close, accept and close the"
            " peer with. First find what holds them all."
            + (" libzmq: unbind() at 90 % of the limit, bind() again below." if of_zmq else ""),
            harmless="Never: a core is lost, and clients wait until they give up.",
            next=f"leakline ls {observed.pid} | tail",
            threshold=f"all {grouped(end.limits.soft)} descriptors in use, a connection waiting, and a"
            f" thread that does not sleep for {MIN_SHARE:.0%} of the time",
            confidence="certain" if of_zmq else "likely",
        )
    ]


def _busy(before: tuple[Thread, ...], after: tuple[Thread, ...], seconds: float) -> dict[Thread, str]:
    """The threads that did not sleep for at least `MIN_SHARE` of the time, with their shares in words."""
    began = {thread.tid: thread for thread in before}
    found = {}
    for thread in after:
        first = began.get(thread.tid)
        if first is None or None in (first.cpu_seconds, thread.cpu_seconds, first.ready_seconds, thread.ready_seconds):
            continue
        on_cpu = (thread.cpu_seconds or 0.0) - (first.cpu_seconds or 0.0)
        ready = (thread.ready_seconds or 0.0) - (first.ready_seconds or 0.0)
        if on_cpu + ready >= MIN_SHARE * seconds:
            found[thread] = f"{on_cpu / seconds:.0%} of a core, {ready / seconds:.0%} of the time in the queue for one"
    return found
