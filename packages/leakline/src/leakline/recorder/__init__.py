"""Which descriptors are open, who opened them and since when: written in the process itself, read from anywhere.

`DescriptorTable` is the writer (a C library records what a hooked library opens), `read_table` the reader.
`leakline.recorder.origins` names recorded stacks; not imported here, as programs that keep a table need no names.
"""

from leakline.recorder.descriptor_table import Counters, DescriptorTable, Hooked
from leakline.recorder.errors import (
    ClosedTableError,
    LibraryMissingError,
    RecorderError,
    RecordingFormatError,
    TableError,
    TableFormatError,
)
from leakline.recorder.imports import replace_import
from leakline.recorder.recording import Recording
from leakline.recorder.recording_file import read_recording
from leakline.recorder.recording_place import find_recording
from leakline.recorder.table_file import Entry, Table, read_table, start_time_ticks

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
