"""Why nothing was recorded of a launched program: the loader of the system did not load the recorder into it."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress

from leakline.recorder.exports import Exports, ExportsError

_OUTSIDE = "the report tells what was seen from outside: kinds and growth, no lines"


def why_unrecorded(command: str) -> str:
    """In words, with what remains; of a program that ended without a recording. Reads the beginning of its file."""
    path = shutil.which(command) or command
    return f"nothing was recorded of {command}: {_why(path)}; {_OUTSIDE}"


def _why(path: str) -> str:
    with suppress(OSError, ExportsError):
        if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
            return "it runs with the rights of its file's owner or group, and the system loads nothing foreign into it"
        interpreter = Exports.in_file(path).interpreter()
        if not interpreter:
            return "it is statically linked (or Go), and has no C library to intercept"
        if "musl" in interpreter:
            return f"it runs on musl ({interpreter}), and the recorder is built for glibc"
    return "the recorder was not loaded, or ended before it began"
