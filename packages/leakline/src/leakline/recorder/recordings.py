"""Finds the recording of a process, and tells what it says at any moment."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from leakline import proc
from leakline.errors import LeaklineError
from leakline.facts import Frame, Recorded, Snapshot
from leakline.recorder.errors import RecorderError
from leakline.recorder.recording import Recording
from leakline.recorder.recording_file import read_recording
from leakline.recorder.recording_layout import HEADER_SIZE, Header
from leakline.recorder.recording_place import find_recording

CPU_SHARE = 0.02  # of one core, for reading while it runs
EVERY_S = 0.05


class Recordings:
    """The recording of one process, found when there is one, and told again at each `look`. Use from one thread.

    `path`: where it is known to be, so that it is read also after the process has ended. Nobody can say then of what
    kind its descriptors were: `glimpse` keeps the kinds.
    """

    def __init__(self, pid: int, path: Path | None = None) -> None:
        self._pid = pid
        self._path = path
        self._last: Snapshot | None = None
        self._due = 0.0
        self._named: dict[float, dict[int, tuple[Frame, ...]]] = {}  # by the recording's beginning: an exec begins anew

    def glimpse(self) -> None:
        """Keep the kinds of now, in case it is the last time; often, but with a small share of one core."""
        began = time.thread_time()
        if self._path is None or time.monotonic() < self._due:
            return
        with suppress(OSError, LeaklineError):
            self._last = proc.snapshot(self._pid, threads=False, libraries=False)
        self._due = time.monotonic() + max(EVERY_S, (time.thread_time() - began) / CPU_SHARE)

    def look(self, snapshot: Snapshot | None) -> Recorded | None:
        """What is recorded by now, None if nothing is, or if it cannot be read. `snapshot`: None after the end."""
        if snapshot is not None:
            self._path = find_recording(self._pid) or self._path
        if self._path is None:
            return None
        # Names of functions and lines take libraries that are slow to import: only where something is recorded.
        from leakline.recorder.recorded import recorded

        try:
            reading = read_recording(self._path)
            return recorded(reading, snapshot, seen=self._last, known=self._known(reading))
        except (OSError, RecorderError):
            return None

    def _known(self, recording: Recording) -> dict[int, tuple[Frame, ...]]:
        return self._named.setdefault(recording.began_at_s, {})

    def exhausted(self) -> int:
        """How often the kernel refused a descriptor so far (EMFILE, ENFILE); 0 where nothing is recorded."""
        if self._path is None:
            return 0
        try:
            with open(self._path, "rb") as file:
                header = Header(file.read(HEADER_SIZE), os.fstat(file.fileno()).st_size, str(self._path))
                return int(header.exhausted)
        except (OSError, RecorderError):
            return 0


def openers(snapshot: Snapshot) -> dict[int, Frame]:
    """The line that opened each descriptor, by number, as far as it is recorded; empty where nothing is.

    `snapshot` is of a running process. Never raises.
    """
    path = find_recording(snapshot.pid)
    if path is None:
        return {}
    from leakline.recorder.headline import headline
    from leakline.recorder.origins import Namer
    from leakline.recorder.reconcile import reconcile

    try:
        recording = read_recording(path)
    except (OSError, RecorderError):
        return {}
    with Namer(recording, pid=snapshot.pid) as namer:
        named = {slot.number: namer.frames(slot.stack) for slot in reconcile(recording, snapshot).slots}
    return {number: headline(frames) for number, frames in named.items() if frames}
