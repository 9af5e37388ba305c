"""Why nothing was recorded of a launched program: the loader of the system did not load the recorder into it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from leakline.recorder.exports import Exports, ExportsError

LEAST_ROOM = 1 << 20  # bytes: a recording of few descriptors takes less
_OUTSIDE = "the report tells what was seen from outside: kinds and growth, no lines"


def why_unrecorded(command: str, folder: Path) -> str:
    """In words, with what remains; of a program that ended without a recording in `folder`. Reads the beginning of its
    file, and tries whether a recording would have room.
    """
    path = shutil.which(command) or command
    return f"nothing was recorded of {command}: {_why(path, folder)}; {_OUTSIDE}"


def _why(path: str, folder: Path) -> str:
    with suppress(OSError, ExportsError):
        if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
            return "it runs with the rights of its file's owner or group, and the system loads nothing foreign into it"
        if not Exports.in_file(path).interpreter():
            return "it is statically linked (or Go), and has no C library to intercept"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, LEAST_ROOM)
    except OSError as error:
        return f"{folder}: {error.strerror} (another place: LEAKLINE_DIR, or --recording FILE)"
    return "the recorder was not loaded, or ended before it began"
