"""The Python stacks of a process, through py-spy where it is installed (`pip install leakline[stacks]`).

py-spy reads the target's memory without stopping it (`--nonblocking`), knows every CPython since 2.7, and is a program
of its own: what it meets in a strange process cannot harm this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

import msgspec

from leakline.facts import Frame

_TIMEOUT_S = 5.0


class _Line(msgspec.Struct):
    name: str
    filename: str
    line: int


class _Stack(msgspec.Struct):
    frames: list[_Line]
    os_thread_id: int | None = None


def python_stacks(pid: int, tids: Collection[int]) -> dict[int, tuple[Frame, ...]]:
    """Stacks of these threads, innermost frame first; empty where py-spy is missing, or cannot read this process."""
    import subprocess  # seldom needed

    program = _program()
    if program is None or not tids:
        return {}
    command = [program, "dump", "--nonblocking", "--json", "--pid", str(pid)]
    try:
        said = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True, stdin=subprocess.DEVNULL)
        stacks = msgspec.json.decode(said.stdout, type=list[_Stack])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return {}
    return {
        stack.os_thread_id: tuple(Frame(line.name, line.filename, line.line, "python") for line in stack.frames)
        for stack in stacks
        if stack.os_thread_id in tids and stack.os_thread_id is not None
    }


def _program() -> str | None:
    import shutil

    beside = os.path.join(os.path.dirname(sys.executable), "py-spy")
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy")
