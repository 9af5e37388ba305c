"""Builds the relay's C library with `make` when a wheel or an editable install is made.

One library serves every Python (it is loaded through ctypes), so the wheel is tagged py3-none-PLATFORM.
Where no C compiler is found the install goes on without it, and says so: relays then move their messages in Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("src/datacenter/broker/native")


class NativeLibrary(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        native = Path(self.root) / NATIVE
        if not (shutil.which("make") and (shutil.which("cc") or shutil.which("gcc"))):
            print("datacenter: no C compiler: installing without the native library", file=sys.stderr)
            return
        subprocess.run(["make", "--silent", "-C", str(native)], check=True)
        library = native / "librelay.so"
        build_data["artifacts"].append(str(NATIVE / library.name))
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
