"""Builds leakline's C libraries with `make` when a wheel or an editable install is made.

They serve every Python (none is an extension of Python), so the wheel is tagged py3-none-linux_MACHINE: that of the
compiler, which $CC names. Where there is none the install goes on without them, and says so: everything but the
recorder works.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RECORDER = Path("src/leakline/recorder")
LIBRARIES = (RECORDER / "native/libleakline.so", RECORDER / "target/libleakline_recorder.so")


class NativeLibrary(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        compiler = os.environ.get("CC") or "cc"
        if not (shutil.which("make") and shutil.which(compiler.split()[0])):
            print(f"leakline: no C compiler ({compiler}): installing without the native libraries", file=sys.stderr)
            return
        machine = machine_of(compiler)
        own = machine == platform.machine()
        for library in LIBRARIES:
            folder = Path(self.root) / library.parent
            # Those of another machine must not take the place of what this checkout runs.
            built = Path(library.name) if own else Path("build") / machine / library.name
            subprocess.run(["make", "--silent", "-C", str(folder), f"CC={compiler}", f"LIBRARY={built}"], check=True)
            build_data["force_include"][str(folder / built)] = str(library.relative_to("src"))
        # Not manylinux_2_17: no newer function is needed, but more of that standard was not looked at.
        build_data["tag"] = f"py3-none-linux_{machine}"
        build_data["pure_python"] = False


def machine_of(compiler: str) -> str:
    """What the compiler builds for: x86_64, aarch64."""
    said = subprocess.run([*compiler.split(), "-dumpmachine"], check=True, capture_output=True, text=True).stdout
    return said.partition("-")[0].strip()
