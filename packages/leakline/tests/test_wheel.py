"""The wheel: one for all Pythons, installed as a user would, and what it says of programs of every Python and of C."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parent
LIBRARIES = {"leakline/recorder/native/libleakline.so", "leakline/recorder/target/libleakline_recorder.so"}
PAGE = {f"leakline/reports/page/{name}" for name in ("page.html", "style.css", "icicle.js")}
PYTHON_PROGRAM = """\
import os, time
kept = []
def connect_once():
    return os.open(os.devnull, os.O_RDONLY)
for _ in range(40):
    kept.append(connect_once())
    time.sleep(0.02)  # it goes on: not a pool that is filled at once
"""
C_PROGRAM = """\
#include <fcntl.h>
#include <unistd.h>
__attribute__((noinline)) static int connect_once(void) {
    int number = open("/dev/null", O_RDONLY);
    __asm__("");
    return number;
}
int main(void) {
    for (int i = 0; i < 40; i++)
        if (connect_once() < 0 || usleep(20000) != 0)
            return 1;
    return 0;
}
"""


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INTERPRETERS: dict[str, Path] = _load(HERE / "recorder/target/interpreters.py").interpreters()
TARGETS = sorted(version for version in INTERPRETERS if version != "2.7")


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, **variables}, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    run(sys.executable, "-m", "pip", "wheel", *options, PACKAGE)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def leakline(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed into a clean environment; what it depends on is that of this one."""
    folder = tmp_path_factory.mktemp("installed") / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # At the end of the path, and without the .pth files in there, one of which is the checkout's.
    (packages / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]) + "\n")
    module = run(python, "-c", "import leakline.recorder.launch as module; print(module.__file__)")
    assert Path(module.strip()).is_relative_to(packages)
    return folder / "bin/leakline"


def finding(leakline: Path, folder: Path, *command: str | Path) -> dict[str, Any]:
    """The one finding of a run."""
    report = folder / "report.json"
    run(leakline, "run", "--json", "--output", report, "--", *command, LEAKLINE_DIR=str(folder / "recordings"))
    (found,) = json.loads(report.read_text())["findings"]
    return dict(found)


def test_it_is_for_any_python_and_has_both_libraries_the_page_and_no_sources_in_c(wheel: Path) -> None:
    assert wheel.name.endswith(f"-py3-none-linux_{platform.machine()}.whl")
    names = zipfile.ZipFile(wheel).namelist()
    others = {name for name in names if not name.endswith((".py", "py.typed")) and ".dist-info/" not in name}
    assert others == LIBRARIES | PAGE


@pytest.fixture(scope="module")
def python_findings(leakline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Any]]]:
    """Of each Python, some at a time: half of each run is waiting."""
    with ThreadPoolExecutor(3) as pool:

        def start(version: str) -> Future[Any]:
            folder = tmp_path_factory.mktemp("run")
            (folder / "program.py").write_text(PYTHON_PROGRAM)
            return pool.submit(finding, leakline, folder, INTERPRETERS[version], folder / "program.py")

        yield {version: start(version) for version in TARGETS}


@pytest.mark.parametrize("version", TARGETS)
def test_a_program_of_each_python(python_findings: dict[str, Future[Any]], version: str) -> None:
    found = python_findings[version].result()
    ((_, program, _), *_) = places(found, "python")
    assert Path(program).name == "program.py"
    assert found["title"].startswith("connect_once (program.py:4) opened 40 ")
    assert places(found, "python") == [("connect_once", program, 4), ("<module>", program, 6)]


def test_a_program_in_c(leakline: Path, tmp_path: Path) -> None:
    source = tmp_path / "program.c"
    source.write_text(C_PROGRAM)
    run("cc", "-g", "-O1", "-o", tmp_path / "program", source)
    found = finding(leakline, tmp_path, tmp_path / "program")
    assert found["title"].startswith("connect_once (program.c:4) opened 40 ")
    assert places(found, "native")[:2] == [("connect_once", str(source), 4), ("main", str(source), 10)]


def places(found: dict[str, Any], language: str) -> list[tuple[str, str, int]]:
    """Function, file and line of the frames in that language, innermost first, of the one line that opened them all."""
    (origin,) = found["origins"]
    return [(each["function"], each["file"], each["line"]) for each in origin["frames"] if each["language"] == language]
