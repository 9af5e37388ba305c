"""Small C programs to attach to, and a library to load into them, compiled once a session."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of this folder, and `called.so`."""
    folder = tmp_path_factory.mktemp("attach")
    for name in ("waits", "busy"):
        compile_c(HERE / f"{name}.c", folder / name)
    compile_c(HERE / "called.c", folder / "called.so", "-shared", "-fPIC", "-fvisibility=hidden")
    return folder


def compile_c(source: Path, result: Path, *options: str) -> None:
    subprocess.run(["cc", "-O1", "-g", "-Wall", *options, "-o", result, source, "-pthread"], check=True)
