"""Points what a loaded library imports at another function: that library's own table only."""

from __future__ import annotations

import ctypes
import os

from leakline.recorder.errors import RecorderError
from leakline.recorder.library import CHooked, library


def replace_import(name: str, symbol: str, function: int, previous: ctypes.c_void_p | None = None) -> int:
    """Points every import of `symbol` at the address `function`, in each loaded library whose file name contains `name`
    (its whole path, when `name` has a slash).

    `previous` gets the address of before, before it changes (with lazy binding it may be what looks the function up).
    Returns how many imports lead to `function` now. It must stay loaded, and be fit for every thread of the library.
    `DescriptorTable.hook_library()` afterwards takes back those that it hooks. Raises LibraryMissingError, and
    RecorderError if one could not be written.
    """
    found = CHooked()
    before = None if previous is None else ctypes.byref(previous)
    library().replace_import(os.fsencode(name), os.fsencode(symbol), function, before, ctypes.byref(found))
    if found.failed:
        raise RecorderError(f"the import {symbol} of {name} could not be replaced: {os.strerror(found.error)}")
    return int(found.slots)
