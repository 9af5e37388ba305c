"""What holds for each folder of the casebook, without playing it: programs, marks, pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from casebook.runner.expectation import CASEBOOK, Case, cases, place_of, read_case

ALL = cases()
SECTIONS = ("## What was seen", "## The old way", "## What leakline says", "## What happens", "## The cure")


@pytest.fixture(params=ALL, ids=lambda case: str(case.name))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def test_its_programs_are_there_and_its_mark_is_one_line(case: Case) -> None:
    assert case.look
    for look in case.look:
        for program in (look.program, look.fixed, *look.beside):
            assert (case.folder / program).is_file(), program
        place = place_of(case, look)
        assert (place is None) == (not look.function)


def test_its_page_tells_all_that_a_case_has_to(case: Case) -> None:
    page = (case.folder / "README.md").read_text(encoding="utf-8")
    assert [section for section in SECTIONS if f"{section}\n" not in page] == []
    for look in case.look:
        assert look.finding in page
        assert look.program in page


def test_it_is_in_the_index(case: Case) -> None:
    assert f"({case.name}/README.md)" in (CASEBOOK / "README.md").read_text(encoding="utf-8")


def test_a_name_that_begins_no_case_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no case begins with nothing_like_it; there are "):
        cases("nothing_like_it")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('seen = "x"\nlook = []\nsee = 1', "unknown field `see`"),
        ('seen = "x"', "missing required field `look`"),
        ('seen = "x', "expected.toml"),
    ],
)
def test_a_mistake_in_an_expectation_is_told_with_its_file(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "expected.toml").write_text(text)
    with pytest.raises(ValueError, match=told):
        read_case(tmp_path)
