"""docs/findings.md is complete: every id that a rule can give has its section, every section its rule and its rows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import leakline.rules

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "findings.md").read_text()
SECTIONS = dict(re.findall(r"^## ([a-z]+\.[a-zA-Z-]+) [^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
# What an id looks like; the names of modules and files in a rule's text do not end so.
ID = re.compile(r"(growth|zmq|limit|tcp|socket|pipe|pidfd|file|fork|threads|python|recorded|observe)\.[a-z][a-z-]+")
NO_IDS = {"socket.listen", "file.py"}


def ids_in_the_rules() -> set[str]:
    """The strings of the rules' code that are an id and nothing else; those of growth are made from the kind."""
    found = set()
    for file in Path(leakline.rules.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ID.fullmatch(node.value):
                found.add(node.value)
    return found - NO_IDS


def test_the_page_has_a_section_for_each_id_and_no_other() -> None:
    assert SECTIONS.keys() - {"growth.KIND"} == ids_in_the_rules()
    assert "growth.KIND" in SECTIONS


@pytest.mark.parametrize("identity", [identity for identity in SECTIONS if not identity.startswith("observe.")])
def test_a_section_says_what_is_measured_and_when_it_is_harmless(identity: str) -> None:
    section = SECTIONS[identity]
    assert "**Measurement" in section
    assert "**Harmless when**" in section


def test_examples_are_in_the_casebook() -> None:
    named = re.findall(r"casebook/(\w+)", PAGE)
    assert [name for name in named if not (ROOT / "casebook" / name).is_dir()] == []
