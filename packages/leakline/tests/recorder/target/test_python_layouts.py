"""The kept layouts of CPython's structures against the headers of each installed interpreter."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TARGET = HERE.parents[2] / "src/leakline/recorder/target"
DESCRIBED = ("2.7", "3.13", "3.14")  # unsupported; describe themselves: test_python_frames.py reads their frames


def _headers() -> dict[str, Path]:
    spec = importlib.util.spec_from_file_location("interpreters", HERE / "interpreters.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Path] = {}
    for version, python in module.interpreters().items():
        ask = "import sysconfig; print(sysconfig.get_paths()['include'])"
        folder = Path(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
        if version.split("-")[0] not in DESCRIBED and (folder / "Python.h").exists():
            found[version] = folder
    return found


@pytest.mark.parametrize(("version", "include"), _headers().items())
def test_layout_is_that_of_the_headers(version: str, include: Path, tmp_path: Path) -> None:
    program = tmp_path / "check"
    flags = ["-w", f"-I{include}", f"-I{include}/internal", f"-I{TARGET}", "-o", str(program)]
    subprocess.run(["cc", *flags, str(HERE / "check_python_layout.c")], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, (version, done.stdout)
