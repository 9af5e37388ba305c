"""A sample of `make casebook`, played as it plays all."""

from __future__ import annotations

import pytest
from casebook.runner.expectation import cases
from casebook.runner.looking import play
from casebook.runner.table import render


@pytest.mark.parametrize("name", ["d_reader_closed_first", "za_closed_twice"])
def test_the_broken_program_is_found_with_its_line_and_nothing_in_the_fixed_one(name: str) -> None:
    (case,) = cases(name)
    result = play(case, case.look[0])
    assert result.right, render([result])
