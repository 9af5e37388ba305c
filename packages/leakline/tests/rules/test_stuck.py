"""Who may hold what stuck threads wait for, by their Python stacks. Facts by hand."""

from __future__ import annotations

import msgspec

from leakline.facts import Finding, Frame, Sample, Snapshot, Thread, Wait
from leakline.growth import judge
from leakline.rules.observed import Observed
from leakline.rules.stuck import stuck

JOIN = Frame("Thread.join", "/usr/lib/python3.11/threading.py", 1119, "python")


def stop(line: int) -> Frame:
    return Frame("Manager.stop", "/srv/proxies.py", line, "python")


def thread(tid: int, lock: int) -> Thread:
    return Thread(tid, f"stop {tid}", "S", "futex_do_wait", 7, wait=Wait("futex", lock=lock))


def found(stacks: dict[int, tuple[Frame, ...]]) -> list[Finding]:
    """Threads 11 and 12 wait for one lock, 13 for another."""
    begin = Snapshot(1, "python", 0.0, (), None, threads=(thread(11, 64), thread(12, 64), thread(13, 128)))
    end = msgspec.structs.replace(begin, at=4.0)
    growth = judge((Sample(0.0, 9, {}), Sample(4.0, 9, {})))
    return stuck(Observed(pid=1, growth=growth, counts={}, begin=begin, end=end, stacks=stacks))


def test_a_thread_further_on_in_the_function_may_hold_the_lock() -> None:
    (finding,) = found({11: (stop(68),), 12: (stop(68),), 13: (JOIN, stop(71))})
    assert finding.evidence["perhaps held by"] == [
        "thread 13, Thread.join (threading.py:1119) ← Manager.stop (proxies.py:71)"
    ]


def test_a_thread_elsewhere_or_before_the_lock_does_not() -> None:
    for other in ((JOIN,), (stop(67),), (stop(68),)):
        (finding,) = found({11: (stop(68),), 12: (stop(68),), 13: other})
        assert "perhaps held by" not in finding.evidence
