"""Line tables: every instruction that each installed interpreter compiles, against its own answer."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from leakline.recorder.python_lines import NO_LINE, line_of
from leakline.recorder.recording import Code

HERE = Path(__file__).parent / "target"


def _interpreters() -> dict[str, Path]:
    spec = importlib.util.spec_from_file_location("interpreters", HERE / "interpreters.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Path] = module.interpreters()
    return {version: path for version, path in found.items() if version != "2.7"}


@pytest.mark.parametrize(("version", "python"), _interpreters().items())
def test_every_instruction_has_the_line_that_python_says(version: str, python: Path) -> None:
    program = [str(python), str(HERE / "python_line_tables.py")]
    told = json.loads(subprocess.run(program, check=True, capture_output=True, timeout=60).stdout)
    compared = 0
    for number, code in enumerate(told["codes"], 1):
        table = bytes.fromhex(code["lines"])
        own = Code(number, "x.py", code["name"], code["first_line"], told["version"], table)
        for offset, line in code["told"]:
            assert line_of(own, offset) == line, (version, code["name"], offset)
            compared += 1
        assert line_of(own, -1) == code["first_line"]
    assert compared > 1000


@pytest.mark.parametrize("version", [0x030A0DF0, 0x030B07F0, 0x030E00F0])
def test_a_table_that_does_not_reach_gives_no_line(version: int) -> None:
    assert line_of(Code(1, "x.py", "f", 7, version, b""), 4) == NO_LINE
    assert line_of(Code(1, "x.py", "f", 7, version, b"\xff"), 400) == NO_LINE


def test_a_damaged_table_ends() -> None:
    for size in range(1, 40):
        for byte in (0x00, 0x3F, 0x40, 0x7F, 0x80, 0xEF, 0xF7, 0xFF):
            for version in (0x030612F0, 0x030A0DF0, 0x030B07F0):
                assert isinstance(line_of(Code(1, "x.py", "f", 7, version, bytes([byte]) * size), 1000), int)
