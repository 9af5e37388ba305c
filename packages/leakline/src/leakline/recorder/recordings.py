"""Finds the recording of a process, and tells what it says at any moment."""

from __future__ import annotations

import os
from pathlib import Path

from leakline.facts import Recorded, Snapshot
from leakline.recorder.errors import RecorderError
from leakline.recorder.recording_layout import HEADER_SIZE, Header
from leakline.recorder.recording_place import find_recording


class Recordings:
    """The recording of one process, found when there is one, and told again at each `look`. Use from one thread.

    `path`: where it is known to be, so that it is read also after the process has ended.
    """

    def __init__(self, pid: int, path: Path | None = None) -> None:
        self._pid = pid
        self._path = path

    def look(self, snapshot: Snapshot | None) -> Recorded | None:
        """What is recorded by now; None if nothing is, or if it cannot be read."""
        if snapshot is not None:
            self._path = find_recording(self._pid) or self._path
        if self._path is None:
            return None
        # Names of functions and lines take libraries that are slow to import: only where something is recorded.
        from leakline.recorder.recorded import recorded
        from leakline.recorder.recording_file import read_recording

        try:
            return recorded(read_recording(self._path), snapshot)
        except (OSError, RecorderError):
            return None

    def exhausted(self) -> int:
        """How often the kernel refused a descriptor so far (EMFILE, ENFILE); 0 where nothing is recorded."""
        if self._path is None:
            return 0
        try:
            with open(self._path, "rb") as file:
                return Header(file.read(HEADER_SIZE), os.fstat(file.fileno()).st_size, str(self._path)).exhausted
        except (OSError, RecorderError):
            return 0
