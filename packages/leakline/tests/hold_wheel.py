"""`make hold-wheel`: leakline itself, out of the wheel, on each Python here since 3.10, with its dependencies."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from test_wheel import INTERPRETERS, PACKAGE, PYTHON_PROGRAM, finding, run

OLDEST = (3, 10)
IMPORT_ALL = """
import importlib, pkgutil, leakline
names = [each.name for each in pkgutil.walk_packages(leakline.__path__, "leakline.")]
names = [name for name in names if not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def hold(python: Path, wheel: Path, folder: Path) -> str:
    """What was found: the number of modules that were imported, and the headline of a recorded program."""
    run(python, "-m", "venv", "--without-pip", folder / "environment")
    own = folder / "environment/bin/python"
    run(sys.executable, "-m", "pip", "--python", own, "install", "--quiet", wheel, "pytest")  # which the plugin imports
    modules = run(own, "-W", "error", "-c", IMPORT_ALL).strip()
    run(folder / "environment/bin/leakline", "--help")
    (folder / "program.py").write_text(PYTHON_PROGRAM)
    title = finding(folder / "environment/bin/leakline", folder, python, folder / "program.py")["title"]
    assert title.startswith("connect_once (program.py:4) opened 40 "), title
    return f"{modules} modules; {title}"


def main() -> None:
    versions = [version for version in INTERPRETERS if "-" not in version]
    wanted = sorted((each for each in versions if number(each) >= OLDEST), key=number)
    with tempfile.TemporaryDirectory() as name:
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", f"{name}/dist"]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(PACKAGE)], check=True)
        (wheel,) = Path(name, "dist").iterdir()
        for version in wanted:
            folder = Path(name, version)
            folder.mkdir()
            print(f"{version}: {hold(INTERPRETERS[version], wheel, folder)}", flush=True)


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    main()
