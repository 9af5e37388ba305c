"""The section DESCRIPTOR PROBLEMS at the end of a run: what was left open, by which test and which line."""

from __future__ import annotations

from typing import Any

import pytest

from leakline.pytest_plugin.tally import Tally


class Section:
    """One for a session, in the process that has the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self._tallies: list[Tally] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """A leak is a failure of its own kind: L among the dots."""
        if not is_ours(report):
            return None
        return "failed", "L", ("LEAK", {"red": True})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of xdist has ended, and says what it looked at."""
        output = getattr(node, "workeroutput", {})
        if "leakline" in output:
            self._tallies.append(Tally.received(output["leakline"]))

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """Each test's descriptors, then how much was looked at."""
        guard = config.pluginmanager.get_plugin("leakline-guard")
        tally = Tally()
        for each in self._tallies if guard is None else [*self._tallies, guard.tally]:
            tally.add(each)
        reports = [report for report in terminalreporter.getreports("failed") if is_ours(report)]
        if reports:
            _write(terminalreporter, reports)
        if reports or terminalreporter.verbosity > 0 or tally.unrecorded or tally.unseen:
            terminalreporter.write_line(told(tally))


def _write(terminal: pytest.TerminalReporter, reports: list[Any]) -> None:
    # What draws is imported where something is drawn.
    from leakline.pytest_plugin.result import left_of
    from leakline.reports.left_open import lines_of
    from leakline.reports.style import NARROWEST, WIDEST, Style

    writer = terminal._tw
    width = max(NARROWEST, min(writer.fullwidth - 1, WIDEST))
    style = Style(width=width, colours=writer.hasmarkup, unicode=_unicode(writer))
    terminal.write_sep("=", "DESCRIPTOR PROBLEMS", red=True, bold=True)
    for report in reports:
        found, unrecorded = left_of(report)
        for left in found:
            by = f"{report.nodeid}, fixture {left.fixture}" if left.fixture else report.nodeid
            terminal.write_sep("_", by, bold=True)
            for line in lines_of(left.leaks, style, unrecorded):
                terminal.write_line(line)


def is_ours(report: Any) -> bool:
    """Whether `result.report_of` made it."""
    return getattr(report, "leakline", None) is not None


def told(tally: Tally) -> str:
    """In one line, what was looked at and what did not count."""
    parts = [f"{tally.judged} tests judged"]
    if tally.failed:
        parts.append(f"{tally.failed} not, as they failed: their tracebacks keep what they held")
    if tally.unseen:
        parts.append(f"{tally.unseen} not, as leakline could not look: {tally.unseen_because}")
    left_out = [
        f"{count} {what}"
        for count, what in (
            (tally.by_imports, "opened by imports"),
            (tally.cached, "first of a cache of a module"),
            (tally.of_fixtures, "held by fixtures"),
            (tally.allowed, "allowed"),
        )
        if count
    ]
    if left_out:
        parts.append(f"not counted: {', '.join(left_out)}")
    if tally.unrecorded:
        parts.append(f"lines are not known: {tally.unrecorded}")
    return "leakline: " + "; ".join(parts)


def _unicode(writer: Any) -> bool:
    return (getattr(writer._file, "encoding", "") or "").lower().replace("-", "") == "utf8"
