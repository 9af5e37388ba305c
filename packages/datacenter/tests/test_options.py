"""docs/options.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datacenter.options import TABLE, option
from datacenter.options_page import render

PAGE = Path(__file__).resolve().parents[3] / "docs" / "options.md"


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text() == render(), "docs/options.md is old: make docs-options"


def test_units_are_last_in_names() -> None:
    render()
    units = {"s": "_s", "ms": "_ms"}
    for entry in TABLE.values():
        ending = units.get(entry.unit)
        assert ending is None or entry.name.endswith(ending), entry
        assert entry.unit or not re.search(r"_m?s$", entry.name), entry


def test_an_option_is_entered_once() -> None:
    with pytest.raises(ValueError, match="exists already"):
        option("session", "lease_s", 1.0, "s", "", "")
    with pytest.raises(ValueError, match="no group 'nowhere'"):
        option("nowhere", "lease_s", 1.0, "s", "", "")
