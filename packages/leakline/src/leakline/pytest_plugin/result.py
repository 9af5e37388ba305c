"""What a test left open, in a form that travels from a worker of xdist to its controller. Imported where one did."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leakline.own_process.leaks import Leak


class Left(msgspec.Struct, frozen=True):
    """What one test, or one fixture of a wider scope, left open. `fixture`: `db (module)`, "" if it was the test."""

    leaks: tuple[Leak, ...]
    fixture: str = ""


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


def left_of(report: Any) -> tuple[list[Left], str]:
    """What `report_of` put into a report that `section.is_ours`."""
    carried = report.leakline
    return msgspec.convert(carried["left"], list[Left]), carried["unrecorded"]
