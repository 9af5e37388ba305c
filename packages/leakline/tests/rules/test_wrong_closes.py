"""Closes of what was not open, or of somebody else's: one finding a line, whatever it closed. Facts by hand."""

from __future__ import annotations

from typing import Literal

from leakline.facts import Finding, Frame, Recorded, Sample, WrongClosed
from leakline.growth import judge
from leakline.reports.terminal import evidence_lines
from leakline.rules.observed import Observed
from leakline.rules.recorded import wrong_closes

SWEEP = Frame("close_all", "/srv/daemon.py", 26, "python")
OTHER = Frame("rotate", "/srv/log.py", 7, "python")
OPENED = Frame("work", "/srv/daemon.py", 43, "python")


def wrong(
    number: int, kind: Literal["nothing-open", "other-owner", "library-owner"], closed_by: Frame = SWEEP
) -> WrongClosed:
    return WrongClosed(number, kind, 1, (closed_by,), (), (OPENED,))


def found(*closes: WrongClosed) -> list[Finding]:
    recorded = Recorded("x.leakline", "launched", 1.0, False, 9, 9, wrong_closes=closes)
    return wrong_closes(Observed(pid=1, growth=judge((Sample(0.0, 9, {}),)), counts={}, ended=True, recorded=recorded))


def test_a_sweep_over_many_descriptors_of_libzmq_is_one_finding() -> None:
    (finding,) = found(wrong(5, "library-owner"), wrong(3, "library-owner"), wrong(4, "library-owner"))
    assert finding.id == "zmq.foreign-close"
    assert finding.title == "close_all (daemon.py:26) closed descriptors 3, 4, 5, which libzmq had opened for itself"
    assert finding.count == 3


def test_another_line_and_another_story_are_findings_of_their_own() -> None:
    told = found(
        wrong(3, "library-owner"), wrong(4, "library-owner", OTHER), wrong(5, "nothing-open"), wrong(6, "other-owner")
    )
    assert sorted(finding.id for finding in told) == [
        "recorded.double-close",
        "recorded.foreign-close",
        "zmq.foreign-close",
        "zmq.foreign-close",
    ]


def test_one_close_is_told_in_the_singular() -> None:
    (finding,) = found(wrong(3, "nothing-open"))
    assert finding.title == "close_all (daemon.py:26) closed descriptor 3, which was not open (EBADF)"


def test_the_report_says_which_stack_is_whose() -> None:
    (finding,) = found(wrong(3, "other-owner"))
    assert evidence_lines(finding.evidence) == ["closed by: close_all (daemon.py:26)", "opened by: work (daemon.py:43)"]


def test_an_owner_who_finds_his_descriptor_gone_is_not_blamed_but_the_close_before() -> None:
    (finding,) = found(WrongClosed(7, "other-owner", 1, (OTHER,), (SWEEP,), (OPENED,)))
    assert finding.title.startswith(
        "close_all (daemon.py:26) closed descriptor 7, which work (daemon.py:43) had opened"
    )
    assert evidence_lines(finding.evidence) == [
        "closed by: close_all (daemon.py:26)",
        "opened by: work (daemon.py:43)",
        "found gone by: rotate (log.py:7)",
    ]
