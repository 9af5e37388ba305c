"""`make hold-aarch64`: both libraries built for aarch64, and the recorder in a program that an emulator runs.

Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user. ptrace (attach) cannot run in the emulator: it is only
compiled.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from leakline.recorder import read_recording
from leakline.recorder.origins import origins

HERE = Path(__file__).parent
RECORDER = HERE.parents[2] / "src/leakline/recorder"
COMPILER, ROOT = "aarch64-linux-gnu-gcc", "/usr/aarch64-linux-gnu"
NAMES = ["open", "openat", "socket", "dup", "eventfd", "epoll_create1", "timerfd_create", "fopen"]
FIRST_LINE = 17
OPTIMISATIONS = ["-O0", "-O1", "-O2 -fomit-frame-pointer", "-O2 -mbranch-protection=standard"]


def built(folder: str, name: str) -> Path:
    library = f"build/aarch64/{name}"
    subprocess.run(["make", "--silent", "-C", RECORDER / folder, f"CC={COMPILER}", f"LIBRARY={library}"], check=True)
    return RECORDER / folder / library


def newest_version(library: Path) -> tuple[int, int]:
    said = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-T", library], check=True, capture_output=True, text=True
    ).stdout
    return max((int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", said))


def record(recorder: Path, folder: Path, options: str) -> None:
    """Records the program, built with these options, and compares function and line of each descriptor."""
    program = folder / "opens_by_calls"
    source = HERE / "opens_by_calls.c"
    subprocess.run([COMPILER, "-g", *options.split(), "-o", program, source], check=True)
    file = folder / "opens.leakline"
    file.unlink(missing_ok=True)
    variables = {"LD_PRELOAD": recorder, "LEAKLINE_RECORDING": file, "LEAKLINE_FOLLOW": "1"}
    words = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    subprocess.run(["qemu-aarch64", "-L", ROOT, *words, program], check=True)
    recording = read_recording(file)
    slots = [slot for slot in recording.slots if slot.stack]
    assert [slot.function for slot in slots] == NAMES, slots
    for index, slot in enumerate(slots):
        (origin,) = origins(recording, [slot.number])
        found = [(frame.function, frame.line) for frame in origin.frames][:2]
        assert found[0] == (f"by_{NAMES[index]}", FIRST_LINE + index), found
        assert found[1][0] == "main", found
    print(f"{options}: {len(slots)} descriptors, each by its function and line", flush=True)


def main() -> None:
    recorder = built("target", "libleakline_recorder.so")
    for library in (recorder, built("native", "libleakline.so")):
        version = newest_version(library)
        assert version <= (2, 17), version
        print(f"{library.name}: needs glibc {version[0]}.{version[1]}")
    with tempfile.TemporaryDirectory() as name:
        for options in OPTIMISATIONS:
            record(recorder, Path(name), options)


if __name__ == "__main__":
    main()
