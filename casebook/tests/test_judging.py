"""The comparison of what leakline said with what it must say: each way in which it can be wrong is seen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from casebook.runner.expectation import Look, Place
from casebook.runner.judging import judge, others

LOOK = Look(
    "broken.py", "fixed.py", "launched", 4.0, finding="zmq.reaper-blocked", kind="eventfd", function="ask", at="x"
)
PLACE = Place("ask", "broken.py", 41)


def report(
    *findings: dict[str, Any], growth: dict[str, float] | None = None, alive: tuple[Any, ...] = ()
) -> dict[str, Any]:
    return {
        "findings": list(findings),
        "growth": {"eventfd": 40.0} if growth is None else growth,
        "counts": {"eventfd": 100},
        "recording": {"alive": list(alive)},
    }


def origin(function: str = "ask", file: str = "/srv/broken.py", line: int = 41, count: int = 100) -> dict[str, Any]:
    library = {"function": "zmq_socket", "file": "libzmq.so.5", "line": 0, "language": "native"}
    return {"count": count, "headline": 1, "frames": [library, {"function": function, "file": file, "line": line}]}


def finding(identity: str = "zmq.reaper-blocked", *origins: dict[str, Any], **evidence: object) -> dict[str, Any]:
    return {
        "id": identity,
        "severity": "leak",
        "title": "told",
        "evidence": evidence,
        "origins": list(origins),
    }


def test_the_right_finding_at_the_right_line_is_right() -> None:
    assert judge(LOOK, PLACE, report(finding("zmq.reaper-blocked", origin()))).right


@pytest.mark.parametrize(
    "elsewhere",
    [origin(line=42), origin(file="/srv/fixed.py"), origin(function="tell"), origin(function="task")],
    ids=["line", "file", "function", "end of a name"],
)
def test_another_place_is_wrong(elsewhere: dict[str, Any]) -> None:
    judgement = judge(LOOK, PLACE, report(finding("zmq.reaper-blocked", elsewhere, origin(count=80))))
    assert judgement.found
    assert judgement.line_right is False
    assert "ask broken.py:41" in judgement.why


@pytest.mark.parametrize(
    "name", ["ask", "Session.ask", "Session::ask(char const*)", "int ask<int>(int)", "void ns::ask[abi:cxx11](int)"]
)
def test_a_function_is_known_by_any_of_its_names(name: str) -> None:
    found = name != "int ask<int>(int)"  # a template's arguments are part of its name
    assert judge(LOOK, PLACE, report(finding("zmq.reaper-blocked", origin(name)))).right is found


def test_of_two_lines_that_open_as_many_either_may_come_first() -> None:
    told = finding("zmq.reaper-blocked", origin(line=42, count=100), origin(count=98))
    assert judge(LOOK, PLACE, report(told)).right


def test_another_finding_is_not_enough() -> None:
    judgement = judge(LOOK, PLACE, report(finding("growth.eventfd", origin())))
    assert not judgement.right
    assert "growth.eventfd" in judgement.why


def test_another_kind_is_not_enough() -> None:
    told = report(finding("zmq.reaper-blocked", origin()), growth={"tcp": 3.0})
    assert not judge(LOOK, PLACE, told).found


def test_the_line_may_be_told_by_the_evidence() -> None:
    close = finding("recorded.foreign-close", **{"closed by": ["close_all (broken.py:41)", "main (broken.py:60)"]})
    look = msgspec.structs.replace(LOOK, finding="recorded.foreign-close", kind="", function="close_all")
    assert judge(look, Place("close_all", "broken.py", 41), report(close)).right
    assert not judge(look, Place("main", "broken.py", 60), report(close)).right


def test_where_nothing_may_be_found_anything_is_wrong() -> None:
    look = Look("broken.py", "fixed.py", "observed", 4.0)
    assert judge(look, None, report()).right
    assert not judge(look, None, report(finding("growth.undecided"))).right


def test_each_finding_of_a_program_put_right_is_told() -> None:
    assert others(report()) == []
    assert others(report(finding("growth.undecided"))) == ["growth.undecided (leak): told"]
