"""Descriptors that Python's standard library opens (calls.py): each origin is the function and line of the program."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from leakline.recorder.origins import Namer

HERE = Path(__file__).parent
PROGRAM = HERE / "calls.py"
RARE = {
    "case_os_eventfd",
    "case_os_pidfd_open",
    "case_os_memfd_create",
    "case_os_posix_openpt",
    "case_os_timerfd_create",
}


def _interpreters() -> dict[str, Path]:
    spec = importlib.util.spec_from_file_location("interpreters", HERE / "interpreters.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Path] = module.interpreters()
    return {version: path for version, path in found.items() if not version.startswith("2.")}


INTERPRETERS = _interpreters()


@pytest.mark.parametrize("version", INTERPRETERS)
def test_each_origin_is_the_line_of_the_call(version: str, recorded: Any, tmp_path: Path, monkeypatch: Any) -> None:
    minor = int(version.removesuffix("-static").split(".")[1])
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    process = recorded.start(INTERPRETERS[version], "-S", "-E", PROGRAM)
    told: dict[int, tuple[str, int]] = {}
    for line in process.stdout:
        if line == "ready\n":
            break
        name, number_of_line, *numbers = line.split()
        told |= {int(number): (name, int(number_of_line)) for number in numbers}
    recording = recorded.recording(process.pid)
    with Namer(recording) as namer:
        found = {number: namer.origins([number])[0].frames for number in told}
    _, errors = process.communicate("")
    assert process.returncode == 0, errors

    own = {}
    for number, frames in found.items():
        innermost = next(frame for frame in frames if frame.file == str(PROGRAM))
        function = innermost.function.partition(".<locals>")[0]
        if function in ("<lambda>", "<genexpr>"):  # code objects have no qualified name before 3.11
            assert minor < 11
            function = told[number][0]
        own[number] = (function, innermost.line)
    assert own == told
    assert len(told) > 25
    assert not recording.wrong_closes
