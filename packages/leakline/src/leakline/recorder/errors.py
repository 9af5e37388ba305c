"""What can go wrong with the recorder. None of it is a reason for a program to stop: catch RecorderError and go on."""

from __future__ import annotations


class RecorderError(Exception):
    """Base of the recorder's errors. `hint` says what to do or type next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class LibraryMissingError(RecorderError):
    """The native library is not there, or cannot be loaded by this Python."""


class TableError(RecorderError):
    """The table could not be made. `__cause__` is the OSError."""


class TableFormatError(RecorderError):
    """The file is not a table that this version can read."""


class ClosedTableError(RecorderError):
    """The table was closed."""
