"""`make hold-python-frames`: walks of Python frames in each installed interpreter, for minutes.

Four threads make and drop code objects while signals interrupt them for walks; then the interpreter ends again and
again beside a daemon thread that walks. Prints a table; fails on a wrong or unknown name and on a process that dies.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import test_python_frames as frames

SECONDS, INTERVAL_US, ENDS = "15", "1000", 50


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        harness = Path(folder) / "harness.so"
        frames.build(harness)
        return hold(harness)


def hold(harness: Path) -> int:
    titles = ("code objects", "same memory", "wrong", "interrupted", "wrong", "broken", "ends")
    print(f"{'Python':<12}" + "".join(f"{title:>13}" for title in titles))
    for version, python in frames.SUPPORTED.items():
        told = json.loads(frames.run(python, harness, "python_soak.py", SECONDS, INTERVAL_US))
        frames.judge(told)
        for _ in range(ENDS):
            frames.run(python, harness, "python_scenes_odd.py")
        made, signals = told["made"], told["signals"]
        row = (
            made["made"],
            made["same_addresses"],
            made["wrong"],
            signals["walks"],
            signals["wrong"],
            signals["broken"],
            ENDS,
        )
        print(f"{version:<12}" + "".join(f"{value:>13}" for value in row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
