"""What the guard found out about one test, in a form that travels from a worker of xdist to its controller."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leakline.own_process.leaks import Leak
from leakline.pytest_plugin.judgement import Verdict


class Left(msgspec.Struct, frozen=True):
    """What one test, or one fixture of a wider scope, left open. `fixture`: `db (module)`, "" if it was the test."""

    leaks: tuple[Leak, ...]
    fixture: str = ""


class Tally(msgspec.Struct):
    """What was looked at in one session, and what did not count."""

    judged: int = 0
    failed: int = 0  # tests that failed: their tracebacks keep what they held, so they were not judged
    by_imports: int = 0
    cached: int = 0  # the first that a module keeps of a line
    of_fixtures: int = 0  # opened late, and held by a fixture of a wider scope
    allowed: int = 0
    unrecorded: str = ""  # why no line is known, in words

    def count(self, verdict: Verdict) -> None:
        """One more descriptor that was judged."""
        self.by_imports += verdict == "import"
        self.cached += verdict == "cache"
        self.of_fixtures += verdict == "fixture"
        self.allowed += verdict == "allowed"


def report_of(item: pytest.Item, left: list[Left], unrecorded: str) -> pytest.TestReport:
    """A report that fails the test beside those of its phases."""
    from leakline.reports.left_open import in_a_line

    told = "; ".join(
        f"left open{f' by fixture {each.fixture}' * bool(each.fixture)}: {in_a_line(each.leaks)}" for each in left
    )
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=f"{told}. See DESCRIPTOR PROBLEMS below.",
        when="teardown",
        leakline=msgspec.to_builtins({"left": left, "unrecorded": unrecorded}),
    )


def left_of(report: Any) -> tuple[list[Left], str] | None:
    """What `report_of` put in, if that is what made the report."""
    carried = getattr(report, "leakline", None)
    return None if carried is None else (msgspec.convert(carried["left"], list[Left]), carried["unrecorded"])
