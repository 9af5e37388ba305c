"""What can go wrong with the recorder. None of it is a reason for a program to stop: catch RecorderError and go on."""

from __future__ import annotations

from leakline.errors import LeaklineError


class RecorderError(LeaklineError):
    """Base of the recorder's errors."""


class LibraryMissingError(RecorderError):
    """The native library is not there, was built from other sources, or cannot be loaded by this Python."""


class TableError(RecorderError):
    """The table could not be made. `__cause__` is the OSError."""


class TableFormatError(RecorderError):
    """The file is not a table that this version can read."""


class RecordingFormatError(RecorderError):
    """The file is not a recording that this version can read."""


class ClosedTableError(RecorderError):
    """The table was closed."""
