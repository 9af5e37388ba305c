"""Builds leakline's C libraries with `make` when a wheel or an editable install is made.

They serve every Python (none is an extension of Python), so the wheel is tagged py3-none-PLATFORM.
Where no C compiler is found the install goes on without it, and says so: everything but the recorder works.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RECORDER = Path("src/leakline/recorder")
LIBRARIES = (RECORDER / "native/libleakline.so", RECORDER / "target/libleakline_recorder.so")


class NativeLibrary(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not (shutil.which("make") and (shutil.which("cc") or shutil.which("gcc"))):
            print("leakline: no C compiler: installing without the native libraries", file=sys.stderr)
            return
        for library in LIBRARIES:
            subprocess.run(["make", "--silent", "-C", str(Path(self.root) / library.parent)], check=True)
            build_data["artifacts"].append(str(library))
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
