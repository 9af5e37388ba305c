"""The table of what was played: a line a look, and below it what was amiss."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from casebook.runner.expectation import Look
from casebook.runner.looking import Result

_HEAD = ("case", "program", "how", "finding", "found", "line", "seconds", "on fixed")


def render(results: Sequence[Result]) -> str:
    """Plain text, in columns."""
    rows = [_HEAD, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join([*lines, "", *_amiss(results), _summary(results)])


def _row(result: Result) -> tuple[str, ...]:
    look, judgement = result.look, result.judgement
    if judgement is None:
        return (result.case.name, _program(look), look.how, look.finding or "none", "no", "–", "–", "–")
    line = {None: "–", True: "right", False: "WRONG"}[judgement.line_right]
    fixed = "–" if result.on_fixed is None else str(len(result.on_fixed) or "none")
    found = "yes" if judgement.found else "NO"
    told = look.finding or "none"
    return (result.case.name, _program(look), look.how, told, found, line, f"{result.seconds:.1f}", fixed)


def _program(look: Look) -> str:
    return f"{look.program}, libzmq {look.libzmq}" if look.libzmq else look.program


def _amiss(results: Sequence[Result]) -> list[str]:
    lines: list[str] = []
    for result in results:
        name = f"{result.case.name}/{result.look.program} ({result.look.how})"
        if result.trouble:
            lines.append(f"{name}: {result.trouble}")
        if result.judgement is not None and result.judgement.why:
            lines.append(f"{name}: {result.judgement.why}")
        lines += [f"{name}: found in {result.look.fixed}: {told}" for told in result.on_fixed or ()]
    return [*lines, ""] if lines else []


def _summary(results: Sequence[Result]) -> str:
    right = sum(result.right for result in results)
    timed = [result.seconds for result in results if result.judgement is not None and result.look.how != "ended"]
    median = f"; median time to the verdict {statistics.median(timed):.1f} s" if timed else ""
    return f"{right} of {len(results)} as expected, of {len({result.case.name for result in results})} cases{median}"
