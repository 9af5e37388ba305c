"""`threads.stuck`: several threads wait for one lock, or for one descriptor, and none of them moves. Pure.

From outside, a pool of idle workers that wait for work and threads that wait for a lock for ever look alike: both sleep
in a futex. Three things tell them apart, and one is needed:
- the futex is a mutex: somebody holds it (a condition variable, on which idle workers wait, is none);
- the Python stack, where it could be read: an idle worker is inside `queue`, `threading` or `concurrent.futures`;
- several threads wait for one eventfd of libzmq's, or read from one socket: such a thing has one user.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from leakline.facts import Finding, Frame, Snapshot, Thread, told
from leakline.rules.grouping import peer_of
from leakline.rules.observed import Observed

STUCK = "threads.stuck"
MIN_THREADS = 2
MIN_SECONDS = 3.0
_READING = ("read", "recvfrom", "recvmsg", "readv", "poll", "ppoll")
_IDLE = ("/threading.py", "/queue.py", "/concurrent/futures/thread.py", "/concurrent/futures/process.py")
_IDLE_FOLDERS = ("/multiprocessing/", "/asyncio/", "/socketserver.py", "/selectors.py", "/sched.py")
_THREADS_SHOWN, _STACKS_SHOWN, _DEEP = 4, 3, 5
Group = tuple[str, int]


def unmoved(begin: Snapshot | None, end: Snapshot | None) -> list[Thread]:
    """The threads that slept in one and the same place at both looks, and not once elsewhere between them."""
    if begin is None or end is None or end.at - begin.at < MIN_SECONDS:
        return []
    before = {thread.tid: thread for thread in begin.threads}
    return [
        thread
        for thread in end.threads
        if thread.wait is not None
        and (first := before.get(thread.tid)) is not None
        and (first.wait, first.context_switches) == (thread.wait, thread.context_switches)
    ]


def waiting_together(begin: Snapshot | None, end: Snapshot | None) -> dict[Group, list[Thread]]:
    """Of those, the ones that wait for the same lock or descriptor, by that; what has one waiter is left out, but for
    mutexes, of which two threads may hold each other's.
    """
    groups: defaultdict[Group, list[Thread]] = defaultdict(list)
    for thread in unmoved(begin, end):
        wait = thread.wait
        if wait is not None and wait.call == "futex":
            groups["mutex" if wait.mutex else "lock", wait.lock].append(thread)
        elif wait is not None and wait.call in _READING and len(wait.numbers) == 1:
            groups["descriptor", wait.numbers[0]].append(thread)
    mutexes = sum(len(threads) for (sort, _), threads in groups.items() if sort == "mutex")
    return {
        group: threads
        for group, threads in groups.items()
        if len(threads) >= MIN_THREADS or (group[0] == "mutex" and mutexes >= MIN_THREADS)
    }


def stuck(observed: Observed) -> list[Finding]:
    """One finding for all threads that wait for something in company, where that is no idling."""
    groups = {
        group: threads
        for group, threads in waiting_together(observed.begin, observed.end).items()
        if _is_stuck(observed, group, threads)
    }
    threads = [thread for each in groups.values() for thread in each]
    if len(threads) < MIN_THREADS or observed.end is None:
        return []
    return [
        Finding(
            id=STUCK,
            severity="warning",
            title=f"{len(threads)} threads wait for {_what(observed, groups)}, unmoved for {observed.seconds:.0f} s",
            count=len(threads),
            per_second=0.0,
            evidence={
                "waiting for": [_line(observed, group, each) for group, each in groups.items()],
                **_stacks(observed, threads),  # first: the line to look at
                **_owners(observed, groups),
            },
            cause="They wait for each other, or for a thread that never comes back: a lock taken twice, two locks taken"
            " in two orders, a join or a reply that is waited for with the lock held, or one socket that several"
            " threads use.",
            remedy="One owner for each lock and socket; never wait for another thread with a lock held; take locks in"
            " one order; give each wait a deadline (`lock.acquire(timeout=5)`). A ZeroMQ socket belongs to one thread.",
            harmless="They are idle workers of a pool that waits in an unusual way.",
            next=f"py-spy dump --native --pid {observed.pid}" if observed.stacks else _gdb(observed.pid),
            threshold=f"{MIN_THREADS} threads, without one context switch for {MIN_SECONDS:.0f} s; no idle pools",
            confidence="certain" if all(group[0] == "mutex" for group in groups) else "likely",
        )
    ]


def _is_stuck(observed: Observed, group: Group, threads: list[Thread]) -> bool:
    sort, number = group
    if sort == "mutex":
        return True
    if sort == "lock":
        known = [observed.stacks[thread.tid] for thread in threads if observed.stacks.get(thread.tid)]
        return len(known) >= MIN_THREADS and not any(_idles(frames) for frames in known)
    descriptors = {each.number: each for each in (observed.end.descriptors if observed.end else ())}
    found = descriptors.get(number)
    if found is None:
        return False
    if found.socket is not None:
        return found.socket.role != "listener"
    return found.kind == "eventfd" and observed.uses_libzmq


def _idles(frames: tuple[Frame, ...]) -> bool:
    file = frames[0].file
    return file.endswith(_IDLE) or any(part in file for part in _IDLE_FOLDERS)


def _what(observed: Observed, groups: dict[Group, list[Thread]]) -> str:
    if len(groups) > 1:
        return f"{len(groups)} locks or descriptors" if any(sort == "descriptor" for sort, _ in groups) else "locks"
    ((sort, number),) = groups
    return "one lock" if sort != "descriptor" else f"one descriptor, {_descriptor(observed, number)}"


def _descriptor(observed: Observed, number: int) -> str:
    for each in observed.end.descriptors if observed.end else ():
        if each.number == number:
            return f"{number} ({each.kind if each.socket is None else peer_of(each)})"
    return str(number)


def _line(observed: Observed, group: Group, threads: list[Thread]) -> str:
    sort, number = group
    what = f"descriptor {_descriptor(observed, number)}" if sort == "descriptor" else f"{sort} {number:#x}"
    named = ", ".join(f"{thread.tid} {thread.name}" for thread in threads[:_THREADS_SHOWN])
    more = f" and {len(threads) - _THREADS_SHOWN} more" if len(threads) > _THREADS_SHOWN else ""
    return f"{what}: thread{'s' if len(threads) > 1 else ''} {named}{more}"


def _owners(observed: Observed, groups: dict[Group, list[Thread]]) -> dict[str, object]:
    owners = {thread.wait.owner for each in groups.values() for thread in each if thread.wait and thread.wait.owner}
    threads = {thread.tid: thread for thread in (observed.end.threads if observed.end else ())}
    lines = [
        f"thread {owner} {threads[owner].name}, which sleeps in {threads[owner].wait_channel or 'an unknown place'}"
        for owner in sorted(owners)
        if owner in threads
    ]
    suspects = [] if lines else _suspects(observed, groups)
    return {"held by": lines} if lines else {"perhaps held by": suspects} if suspects else {}


def _suspects(observed: Observed, groups: dict[Group, list[Thread]]) -> list[str]:
    """A semaphore does not say who has it; but a thread that does not move either, further on in the function that the
    others cannot enter, has as a rule come past the lock.
    """
    waiting = {thread.tid for each in groups.values() for thread in each}
    doors = {(frame.function, frame.file, frame.line) for tid in waiting for frame in observed.stacks.get(tid, ())[:1]}
    return [
        f"thread {tid}, {' ← '.join(told(frame) for frame in frames[: at + 1])}"
        for tid, frames in sorted(observed.stacks.items())
        if tid not in waiting
        for at, frame in enumerate(frames)
        if any(frame.line > line for function, file, line in doors if (function, file) == (frame.function, frame.file))
    ]


def _stacks(observed: Observed, threads: list[Thread]) -> dict[str, object]:
    """The stacks, innermost frame first: each once, most common first."""
    stacks = Counter(observed.stacks[thread.tid] for thread in threads if observed.stacks.get(thread.tid))
    found: dict[str, object] = {}
    for index, (frames, count) in enumerate(stacks.most_common(_STACKS_SHOWN)):
        name = "wanted by" if not index else f"stack {index + 1}, wanted by"
        found[name] = [f"{count} × {told(frames[0])}", *(told(frame) for frame in frames[1:_DEEP])]
    return found


def _gdb(pid: int) -> str:
    return f"gdb -p {pid} -batch -ex 'thread apply all backtrace'"
