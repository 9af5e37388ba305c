"""The recorder, loaded into this very process: the same library that `leakline attach` loads into another one.

It is begun once, shared by all who want it (a `no_leak` inside a test of the plugin), and taken out again by the last.
Its recording is read through a mapping of its file, so that looking at it opens nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from leakline.errors import LeaklineError
from leakline.recorder.errors import LibraryMissingError, RecorderError
from leakline.recorder.recording_layout import COUNTS_AT, HEADER_SIZE, SLOT, Header
from leakline.recorder.recording_place import find_recording, recording_path, recordings_folder
from leakline.recorder.target_library import LIBRARY

_COUNTS = struct.Struct("=32x3Q")  # the generation, marked and closed: recording_layout.h
_MAP_SHARED, _PROT_READ = 1, 1
_WORDS = SLOT.size // 8  # a slot is eight words: `how` is in the first one, the generation is the fourth
_HOW, _GENERATION = 0, 3


class Counters(NamedTuple):
    """How many descriptors were opened and closed since the recording began: while both stand still, nothing moved."""

    opened: int
    closed: int


class OwnRecorder:
    """The recording of this process. `own_recorder` gives the one there is. Any thread may read it.

    `path` is its file, for `leakline.recorder.read_recording`.
    """

    def __init__(self, path: Path, *, begun_here: bool) -> None:
        self.path = path
        self.begun_here = begun_here
        self._map = _Mapping(path)
        self._slots = Header(self._map.view[:HEADER_SIZE].tobytes(), len(self._map.view), str(path)).sections["slots"]
        self._words = self._map.view[self._slots.offset : self._slots.offset + self._slots.count * SLOT.size].cast("Q")

    def counters(self) -> Counters:
        """A microsecond."""
        generation, _, closed = _COUNTS.unpack_from(self._map.view, COUNTS_AT)
        return Counters(generation, closed)

    def generation(self, number: int) -> int:
        """Which opening an open descriptor is of: a number that is opened again has a greater one. 0: not recorded."""
        slot = number * _WORDS
        if number >= self._slots.count or not self._words[slot + _HOW] >> 32 & 0xFFFF:
            return 0
        return self._words[slot + _GENERATION]

    def close(self) -> None:
        """Ends the recording, if it was begun here: all import tables are as they were."""
        self._words.release()
        self._map.close()
        if self.begun_here:
            _library().leakline_recorder_detach()
            with suppress(OSError):
                self.path.unlink()


class _Mapping:
    """A file mapped for reading without a descriptor: Python's own mmap keeps one (an option since 3.13)."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._unmap = libc.munmap
        self._unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.mmap.restype = ctypes.c_void_p
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._size = os.fstat(number).st_size
            self._address = libc.mmap(None, self._size, _PROT_READ, _MAP_SHARED, number, 0)
        finally:
            os.close(number)
        if self._address in (None, ctypes.c_void_p(-1).value):
            raise RecorderError(f"{path} could not be mapped: {os.strerror(ctypes.get_errno())}", "free some memory")
        whole = (ctypes.c_ubyte * self._size).from_address(self._address)
        self.view = memoryview(whole).cast("B").toreadonly()

    def close(self) -> None:
        self.view.release()
        self._unmap(self._address, self._size)


_lock = threading.Lock()
_shared: OwnRecorder | None = None
_users = 0


def own_recorder() -> OwnRecorder:
    """Begins to record this process (a few milliseconds), or joins the recording that goes on: also that of `leakline
    run`. Each call is to be followed by one of `let_go`. Raises a LeaklineError: nothing is recorded then.
    """
    global _shared, _users
    with _lock:
        if _shared is None:
            present = find_recording(os.getpid())
            _shared = _begin() if present is None else OwnRecorder(present, begun_here=False)
        _users += 1
        return _shared


def let_go(recorder: OwnRecorder) -> None:
    """The last one who lets go ends a recording that was begun here. In a child of fork() it is not there any more."""
    global _shared, _users
    with _lock:
        if recorder is not _shared:
            return
        _users -= 1
        if _users == 0:
            _shared = None
            recorder.close()


def _begin() -> OwnRecorder:
    path = recording_path(recordings_folder(in_memory=True), os.getpid())
    with suppress(FileNotFoundError):
        path.unlink()  # of an earlier recording of this process that ended
    error = _library().leakline_recorder_attach(os.fsencode(path))
    if error:
        raise RecorderError(
            f"this process could not be recorded: {os.strerror(-error)}",
            "see docs/attach.md for what stands against it",
        )
    try:
        return OwnRecorder(path, begun_here=True)
    except (OSError, LeaklineError):
        _library().leakline_recorder_detach()
        raise


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(LIBRARY))
        library.leakline_recorder_attach.argtypes = [ctypes.c_char_p]
    except (OSError, AttributeError) as error:
        raise LibraryMissingError(
            f"the recorder could not be loaded: {error}",
            "install the wheel of leakline for this platform (in a checkout: `make native`)",
        ) from error
    return library


def _forget() -> None:
    """In a child of fork(): nothing is recorded there, and the mapping is the parent's recording."""
    global _lock, _shared, _users
    _lock = threading.Lock()
    _shared, _users = None, 0


os.register_at_fork(after_in_child=_forget)
