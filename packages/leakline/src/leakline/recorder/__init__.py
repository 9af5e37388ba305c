"""Which descriptors are open, who opened them and since when: written in the process itself, read from anywhere.

`DescriptorTable` is the writer (a C library records what a hooked library opens), `read_table` the reader; what the
recorder wrote of a whole process, `read_recording` reads. Each name is imported when it is first used: a program that
keeps a table pays for no recording, and one that is recorded pays for no table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakline.recorder.descriptor_table import Counters as Counters
    from leakline.recorder.descriptor_table import DescriptorTable as DescriptorTable
    from leakline.recorder.descriptor_table import Hooked as Hooked
    from leakline.recorder.errors import ClosedTableError as ClosedTableError
    from leakline.recorder.errors import LibraryMissingError as LibraryMissingError
    from leakline.recorder.errors import RecorderError as RecorderError
    from leakline.recorder.errors import RecordingFormatError as RecordingFormatError
    from leakline.recorder.errors import TableError as TableError
    from leakline.recorder.errors import TableFormatError as TableFormatError
    from leakline.recorder.imports import replace_import as replace_import
    from leakline.recorder.process_identity import start_time_ticks as start_time_ticks
    from leakline.recorder.recording import Recording as Recording
    from leakline.recorder.recording_file import read_recording as read_recording
    from leakline.recorder.recording_place import find_recording as find_recording
    from leakline.recorder.table_file import Entry as Entry
    from leakline.recorder.table_file import Table as Table
    from leakline.recorder.table_file import read_table as read_table

_MODULES = {
    "descriptor_table": ("Counters", "DescriptorTable", "Hooked"),
    "errors": (
        "ClosedTableError",
        "LibraryMissingError",
        "RecorderError",
        "RecordingFormatError",
        "TableError",
        "TableFormatError",
    ),
    "imports": ("replace_import",),
    "process_identity": ("start_time_ticks",),
    "recording": ("Recording",),
    "recording_file": ("read_recording",),
    "recording_place": ("find_recording",),
    "table_file": ("Entry", "Table", "read_table"),
}
__all__ = [
    "ClosedTableError",
    "Counters",
    "DescriptorTable",
    "Entry",
    "Hooked",
    "LibraryMissingError",
    "RecorderError",
    "Recording",
    "RecordingFormatError",
    "Table",
    "TableError",
    "TableFormatError",
    "find_recording",
    "read_recording",
    "read_table",
    "replace_import",
    "start_time_ticks",
]


def __getattr__(name: str) -> object:
    import importlib

    for module, names in _MODULES.items():
        if name in names:
            found = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
