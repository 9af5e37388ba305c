"""`pytest --leakline`: a test that leaves descriptors open fails, with their kinds and the lines that opened them.

This module is loaded in every run of pytest where leakline is installed: it imports nothing until it is asked for.
docs/pytest.md tells what counts. `guard` looks at each test, `judgement` decides, `section` reports.
"""

from __future__ import annotations

import pytest

MARKER = (
    'leakline(allow=...): the test may leave open what this names: True (anything), a kind ("tcp"), a glob of a path,'
    " peer, function or file that opened it, a list of these, or a function that is given a leakline Leak"
)
ALLOW = "what any test may leave open: kinds, or globs of paths, peers, functions or files that opened it; one a line"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; `addopts = --leakline` switches it on for a project."""
    group = parser.getgroup("leakline", "descriptor leaks")
    group.addoption("--leakline", action="store_true", help="fail each test that leaves descriptors open")
    group.addoption(
        "--leakline-grace",
        type=float,
        default=None,
        metavar="SECONDS",
        help="how long a descriptor may be closed after its test (0.5): by threads, event loops, libraries",
    )
    group.addoption(
        "--leakline-no-lines",
        action="store_true",
        help="do not load the recorder into the process: kinds and peers only, no lines",
    )
    parser.addini("leakline_allow", ALLOW, type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Registers what is needed; under xdist the workers look, and the controller reports."""
    config.addinivalue_line("markers", MARKER)
    if not config.getoption("--leakline"):
        return
    from leakline.pytest_plugin.guard import Guard
    from leakline.pytest_plugin.section import Section

    config.pluginmanager.register(Guard(config), "leakline-guard")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Section(config), "leakline-section")
