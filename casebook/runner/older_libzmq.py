"""Older releases of libzmq, stripped, as pyzmq's wheels have them: a program in C++ runs with one instead of Debian's.

libzmq has kept one ABI (libzmq.so.5) since 4.2, so the same program runs with each of them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from casebook.runner.programs import BUILD, BuildError

#: which wheel has it: its pyzmq, Python tag, platform (zmq.libs of the wheel; asked with zmq_version())
_WHEELS = {"4.3.2": ("19.0.2", "38", "manylinux2010_x86_64"), "4.3.3": ("20.0.0", "38", "manylinux2010_x86_64")}
DOWNLOAD_S = 120.0


def folder_of(version: str) -> Path:
    """A folder with this libzmq.so.5 and what it needs, for LD_LIBRARY_PATH. Gets the wheel the first time.

    Raises BuildError where it cannot be had.
    """
    folder = BUILD / f"libzmq-{version}"
    if (folder / "libzmq.so.5").exists():
        return folder
    if version not in _WHEELS:
        raise BuildError(f"there is no libzmq {version} here; there are {', '.join(_WHEELS)}")
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:
        part = Path(name) / "libraries"
        part.mkdir()
        with zipfile.ZipFile(_download(version, Path(name))) as wheel:
            for entry in wheel.namelist():
                if ".libs/" in entry and ".so" in entry:
                    library = Path(entry).name
                    (part / ("libzmq.so.5" if library.startswith("libzmq") else library)).write_bytes(wheel.read(entry))
        if not folder.exists():  # another process may have been quicker
            part.rename(folder)
    return folder


def _download(version: str, folder: Path) -> Path:
    pyzmq, python, platform = _WHEELS[version]
    which = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--platform", platform]
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *which]
    words += ["--dest", str(folder), f"pyzmq=={pyzmq}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DOWNLOAD_S)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise BuildError(f"libzmq {version} could not be had, as the wheel of pyzmq {pyzmq}: {done.stderr.strip()}")
    return wheels[0]
