"""The recorder in real Python programs: each descriptor's stack has the frames that Python tells, by line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leakline.recorder import Recording
from leakline.recorder.python_lines import line_of
from leakline.recorder.recording import Stack

if TYPE_CHECKING:
    from .conftest import Recorded

HERE = Path(__file__).parent


def _interpreters() -> dict[str, Path]:
    spec = importlib.util.spec_from_file_location("interpreters", HERE / "interpreters.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Path] = module.interpreters()
    return {version: path for version, path in found.items() if version != "2.7"}


def _named(recording: Recording, stack: Stack) -> list[list[object]]:
    codes = [recording.codes[frame.code] for frame in stack.python]
    lines = [line_of(code, frame.instruction) for code, frame in zip(codes, stack.python, strict=True)]
    return [[code.name, code.file, line] for code, line in zip(codes, lines, strict=True)]


@pytest.mark.parametrize(("version", "python"), _interpreters().items())
def test_each_descriptor_has_the_frames_that_python_tells(version: str, python: Path, recorded: Recorded) -> None:
    process = recorded.start(python, "-B", HERE / "python_opens.py")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    recording = recorded.recording(process.pid)
    assert recording.off_because == ""
    assert recording.python_version >> 16 == 0x0300 | int(version.split("-")[0].split(".")[1])
    slots = {slot.number: slot for slot in recording.slots}
    told = json.loads(line)
    assert len(told) > 15
    fitting = 0
    for number, said in told:
        stack = recording.stacks[slots[number].stack]
        named = _named(recording, stack)
        assert named[-len(said) :] == said, number
        assert 1 <= len(named) - len(said) <= 2
        fitting += _entries_fit(recording, stack)
    assert fitting > 10 or (not recording.eval_ranges and _is_stripped(python))


def _is_stripped(program: Path) -> bool:
    """Then nobody can say where all parts of its evaluation lie."""
    sections = subprocess.run(["readelf", "-SW", program], check=True, capture_output=True, text=True).stdout
    return ".symtab" not in sections


def _entries_fit(recording: Recording, stack: Stack) -> bool:
    """Each run of the interpreter's loop that is on the native stack has its outermost Python frame marked. False: the
    native stack has more frames than there is room for, so that the outer runs are not on it.
    """
    if stack.flags or not recording.eval_ranges:
        return False
    inside = [pc for pc in stack.native if any(start <= pc - 1 < end for start, end in recording.eval_ranges)]
    assert len(inside) == sum(frame.entry for frame in stack.python)
    return True
