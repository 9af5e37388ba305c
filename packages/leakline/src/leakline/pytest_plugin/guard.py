"""Looks at the descriptors before and after each test, and reports what a test, or a fixture at its end, left open.

The look after comes when pytest has let go of everything: after the teardown's report the values of fixtures are still
in `item.funcargs`; before `pytest_runtest_logfinish` they are gone (pytest 9.2, runner.py `runtestprotocol`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from leakline.errors import LeaklineError
from leakline.own_process.left_open import GRACE_S, left_open
from leakline.own_process.looks import Look, appeared, grown, look, sort_of, unmoved
from leakline.own_process.recorder import OwnRecorder, let_go, own_recorder
from leakline.own_process.room import room
from leakline.pytest_plugin.fixtures import Fixtures, Owned
from leakline.pytest_plugin.judgement import Allowed, Judge, without_runner
from leakline.pytest_plugin.marks import marked
from leakline.pytest_plugin.tally import Tally

if TYPE_CHECKING:  # loaded where a test leaves something open
    from leakline.own_process.leaks import Describer, Leak
    from leakline.pytest_plugin.result import Left

FIRST_S = 0.1  # waited before anything is named, which takes longer than most late closes


class Guard:
    """One for a session (of a worker, under xdist)."""

    def __init__(self, config: pytest.Config) -> None:
        grace = config.getoption("--leakline-grace")
        if grace is not None and grace < 0:
            raise pytest.UsageError(f"--leakline-grace={grace:g}: give 0 or more seconds")
        self.tally = Tally()
        self._grace_s: float = GRACE_S if grace is None else grace
        self._lines = not config.getoption("--leakline-no-lines")
        self._allowed: list[Allowed] = list(config.getini("leakline_allow"))
        self._recorder: OwnRecorder | None = None
        self._describer: Describer | None = None
        self._judge_of = Judge(())
        self._fixtures = Fixtures()
        self._item: pytest.Item | None = None
        self._before: Look | None = None
        self._raised = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Records this process while tests run."""
        if session.config.pluginmanager.hasplugin("dsession"):  # a controller: its workers run the tests
            return (yield)
        self._begin()
        self._judge_of = Judge({name for item in session.items if (name := _module_of(item))} | {"conftest"})
        try:
            return (yield)
        finally:
            if hasattr(session.config, "workeroutput"):
                session.config.workeroutput["leakline"] = vars(self.tally)
            recorder, self._recorder = self._recorder, None
            if recorder is not None:
                let_go(recorder)

    def _begin(self) -> None:
        try:
            self._recorder = own_recorder() if self._lines else None
            self.tally.unrecorded = "" if self._lines else "not recorded (--leakline-no-lines)"
        except (LeaklineError, OSError) as error:
            self.tally.unrecorded = error.message if isinstance(error, LeaklineError) else str(error)

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """A marker that means nothing is told before any test runs."""
        for item in items:
            marked(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """The whole life of one test."""
        self._item, self._raised, pid = item, False, os.getpid()
        if self._before is None or not self._unmoved(self._before):
            self._before = self._look()
        try:
            return (yield)
        finally:
            if self._item is not None and os.getpid() == pid:
                self._judge(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[Any]) -> Generator[None, object, object]:
        """Notes a failure: pytest keeps its traceback for a debugger, and with it all that the test held."""
        if call.excinfo is not None and isinstance(call.excinfo.value, Exception):
            self._raised = True
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self) -> None:
        """The end of the test, before the terminal ends its line."""
        if self._item is not None:
            self._judge(self._item)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        """What a fixture of a wider scope opens is not its first test's."""
        if fixturedef.scope == "function" or self._before is None:
            return (yield)
        name = f"{fixturedef.argname} ({fixturedef.scope})"
        self._fixtures.set_up(fixturedef, name)
        before = self._look()
        try:
            return (yield)
        finally:
            if before is not None and not self._unmoved(before) and (after := self._look()) is not None:
                self._fixtures.opened(fixturedef, name, before, after)

    @pytest.hookimpl
    def pytest_fixture_post_finalizer(self, fixturedef: Any) -> None:
        """From now on what it opened must be closed."""
        self._fixtures.ended(fixturedef)

    def _judge(self, item: pytest.Item) -> None:
        self._item = None
        ended = self._fixtures.take_ended()
        if self._raised:
            self.tally.failed += 1
            return
        before = self._before
        if before is None:
            self.tally.unseen += 1
            return
        if not ended and self._unmoved(before):
            self.tally.judged += 1
            return
        # Whatever a test left in force (a mock of os.open or of import, no descriptor to spare) may meet us here: those
        # that follow are run all the same.
        report = None
        try:
            with room():
                left = self._left(item, before, ended)
                if left:
                    from leakline.pytest_plugin.result import report_of

                    report = report_of(item, left, self.tally.unrecorded)
        except NotNamedError as error:
            report = unnamed(item, error)
        except Exception as error:
            self._cannot_look(error)
            self.tally.unseen += 1
            return
        self.tally.judged += 1
        if report is not None:
            item.ihook.pytest_runtest_logreport(report=report)

    def _look(self) -> Look | None:
        try:
            return look(self._recorder)
        except Exception as error:
            self._cannot_look(error)
            return None

    def _cannot_look(self, error: Exception) -> None:
        self._before = None
        self.tally.unseen_because = f"{type(error).__name__}: {error}"

    def _unmoved(self, before: Look) -> bool:
        try:
            return unmoved(before, self._recorder)
        except Exception as error:
            self._cannot_look(error)
            return False

    def _left(self, item: pytest.Item, before: Look, ended: dict[str, Owned]) -> list[Left]:
        belongs = set(self._fixtures.owned())
        fixtures = {each: name for name, opened in ended.items() for each in opened.items()}
        # What a fixture that ended had opened before this test must be gone by now, too.
        base = {number: identity for number, identity in before.open.items() if (number, identity) not in fixtures}

        def counted(now: Look) -> set[int]:
            self._before = now  # of the next test, if nothing moves until then
            new = {number for number in appeared(base, now.open) if (number, now.open[number]) not in belongs}
            return grown(base, now.open, new)

        first_s = min(self._grace_s, FIRST_S)
        numbers = left_open(before, self._recorder, first_s, counted)
        suspects, leaks, unnamed_because = numbers, [], None
        try:
            leaks = self._leaks(item, numbers) if numbers else []
            suspects = {leak.number for leak in leaks}
        except Exception as error:
            unnamed_because = error
        if suspects:
            numbers = left_open(before, self._recorder, self._grace_s - first_s, lambda now: suspects & counted(now))
        if unnamed_because is not None and numbers and "*" not in [*self._allowed, *marked(item)]:
            now = look(self._recorder).open
            raise NotNamedError({number: now[number] for number in numbers if number in now}) from unnamed_because
        opened_by = {number: name for (number, _), name in fixtures.items()}
        groups: dict[str, list[Leak]] = {}
        for leak in leaks:
            if leak.number in numbers:
                groups.setdefault(opened_by.get(leak.number, ""), []).append(leak)
        if not groups:
            return []
        from leakline.pytest_plugin.result import Left

        return [Left(tuple(found), name) for name, found in groups.items()]

    def _leaks(self, item: pytest.Item, numbers: set[int]) -> list[Leak]:
        """Those that are none of a cache, of a fixture, of an import, nor allowed."""
        if self._describer is None:
            from leakline.own_process.leaks import Describer

            self._describer = Describer(self._recorder)
        allowed = [*self._allowed, *marked(item)]
        decided = self._judge_of.verdicts(self._describer.leaks(numbers, self._fixtures.values()), allowed)
        for _, verdict in decided:
            self.tally.count(verdict)
        return [without_runner(leak) for leak, verdict in decided if verdict == "leak"]


class NotNamedError(Exception):
    """Something was left open, and what it is could not be told: `__cause__` says why not."""

    def __init__(self, found: Owned) -> None:
        super().__init__(found)
        self.found = found


def unnamed(item: pytest.Item, error: NotNamedError) -> pytest.TestReport:
    """A report that fails the test, made without anything that is still to be imported."""
    kinds = Counter(sort_of(identity) for identity in error.found.values()).most_common()
    told = ", ".join(f"{count} {kind}" for kind, count in kinds)
    because = f"{type(error.__cause__).__name__}: {error.__cause__}"
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=f"left open: {told}; leakline could not tell more, as the test left this behind: {because}",
        when="teardown",
    )


def _module_of(item: pytest.Item) -> str:
    return str(getattr(getattr(item, "module", None), "__name__", ""))
