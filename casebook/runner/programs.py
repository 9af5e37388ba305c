"""How a program of the casebook is built and started: Python as it is, C and C++ compiled into casebook/build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from casebook.runner.expectation import CASEBOOK, REPOSITORY, Case, Look

BUILD = CASEBOOK / "build"
INCLUDE = CASEBOOK / "include"
_WARNINGS = ("-Wall", "-Wextra", "-Werror")
_COMPILERS = {".c": ("cc", "-std=c11", "-D_GNU_SOURCE"), ".cpp": ("c++", "-std=c++17")}
COMPILE_S = 120.0
LEAKLINE = (sys.executable, "-c", "import sys; sys.argv[0] = 'leakline'; from leakline.commands import main; main()")


class BuildError(Exception):
    """A program could not be compiled; the message holds what the compiler said."""


def command(case: Case, look: Look, program: str) -> list[str]:
    """The words that start a program of a case, without its arguments. Compiles it if its sources are newer."""
    source = case.folder / program
    if source.suffix == ".py":
        return [look.python or sys.executable, str(source)]
    return [str(built(source, look.libraries))]


def built(source: Path, libraries: tuple[str, ...]) -> Path:
    """The program made of a C or C++ source, with debug information as a distribution's own build has it (-O2 -g).

    Raises BuildError.
    """
    target = BUILD / source.parent.name / f"{source.stem}{source.suffix.replace('.', '_')}"
    sources = [source, *source.parent.glob("*.h*"), *INCLUDE.iterdir()]
    if target.exists() and target.stat().st_mtime > max(each.stat().st_mtime for each in sources):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}")  # two may build at once: each ends with a whole file
    compiler = _COMPILERS[source.suffix]
    words = [*compiler, *_WARNINGS, "-O2", "-g", "-pthread", f"-I{INCLUDE}", "-o", str(part), str(source)]
    done = subprocess.run(
        [*words, *(f"-l{library}" for library in libraries)], capture_output=True, text=True, timeout=COMPILE_S
    )
    if done.returncode:
        raise BuildError(f"{source.relative_to(REPOSITORY)} does not compile:\n{done.stderr.strip()}")
    part.replace(target)
    return target


def environment(look: Look, recordings: Path) -> dict[str, str]:
    """What programs and leakline get beside our own variables. 80 columns, as on a console."""
    return {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "LEAKLINE_DIR": str(recordings),
        "TMPDIR": str(recordings),  # programs are ended by SIGKILL: what they leave goes with the scene
        "COLUMNS": "80",
        "NO_COLOR": "1",
        **look.environment,
    }
