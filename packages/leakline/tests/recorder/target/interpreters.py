"""The CPython interpreters of this machine: pyenv's, and the system's own (built without a shared library)."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def interpreters() -> dict[str, Path]:
    """By version ("3.9"), as they say it themselves; "3.11-static" is the system's."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = {"": sorted(root.glob("versions/*/bin/python")), "-static": [Path("/usr/bin/python3")]}
    found: dict[str, Path] = {}
    for suffix, paths in candidates.items():
        for path in paths:
            if path.exists():
                found[version_of(path) + suffix] = path
    own = Path(sys.executable)
    if not found:
        found[version_of(own)] = own
    return found


def version_of(path: Path) -> str:
    command = [str(path), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
