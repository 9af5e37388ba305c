"""The layout of a recording, as target/recording_layout.h has it; the header, checked."""

from __future__ import annotations

import struct
from typing import Final

from leakline.recorder.errors import RecordingFormatError

MAGIC: Final = b"LEAKREC1"
VERSION: Final = 2
HEADER_SIZE = 4096
_BEGIN = struct.Struct("=8s2IQ")
_SECTION = struct.Struct("=Q2I")
_SECTIONS = ("functions", "libraries", "codes", "stacks", "wrong_closes", "frames", "text", "slots")
_IDENTITY = struct.Struct("=2i4Q4I")
_RANGE = struct.Struct("=2Q")
_RANGES = 8
_TEXTS = struct.Struct("=256s256s")
_COUNTS = struct.Struct("=4I2Q6Q4I6Q")
COUNTS_AT: Final = _BEGIN.size + len(_SECTIONS) * _SECTION.size + _IDENTITY.size + _RANGES * _RANGE.size + _TEXTS.size

FUNCTION = struct.Struct("=32s")
LIBRARY = struct.Struct("=2I5Q2I32s")
CODE = struct.Struct("=2I2Q6I")
STACK = struct.Struct("=2HIQ4H5Q")
SLOT = struct.Struct("=I2HIiI2H2Q2IQ2HI")
WRONG_CLOSE = struct.Struct("=IiIIIIIIIIII3Q")
HIGHEST_SLOTS = 1 << 20
SMALLEST_FILE: Final = 96 << 20  # frames and text alone
LARGEST_FILE: Final = 256 << 20
RECORDS = {
    "functions": FUNCTION,
    "libraries": LIBRARY,
    "codes": CODE,
    "stacks": STACK,
    "wrong_closes": WRONG_CLOSE,
    "slots": SLOT,
}


class Section:
    """Where the records of one sort are: `count` of `size` bytes each (of frames and text: bytes)."""

    def __init__(self, offset: int, size: int, count: int) -> None:
        self.offset = offset
        self.size = size
        self.count = count


class Header:
    """The header of a recording, checked."""

    def __init__(self, data: bytes, file_size: int, path: str) -> None:
        if len(data) < HEADER_SIZE or data[:8] != MAGIC:
            raise RecordingFormatError(
                f"{path} is not a recording of leakline, or is still being made",
                "`leakline run -- COMMAND` makes one; a program that just began needs a moment",
            )
        _, version, header_size, size = _BEGIN.unpack_from(data)
        at = _BEGIN.size
        self.sections: dict[str, Section] = {}
        for name in _SECTIONS:
            self.sections[name] = Section(*_SECTION.unpack_from(data, at))
            at += _SECTION.size
        sizes = {name: self.sections[name].size == record.size for name, record in RECORDS.items()}
        if version != VERSION or header_size != HEADER_SIZE or not all(sizes.values()):
            raise RecordingFormatError(
                f"{path} has layout {version}; this leakline reads {VERSION}",
                "use the leakline that is installed beside the one that recorded it",
            )
        identity = _IDENTITY.unpack_from(data, at)
        self.pid, self.parent_pid, self.start_time_ticks, self.pid_namespace, self.began_at, self.ended_at = identity[
            :6
        ]
        self.mode, self.off, self.python_version, range_count = identity[6:]
        at += _IDENTITY.size
        ranges = [_RANGE.unpack_from(data, at + index * _RANGE.size) for index in range(_RANGES)]
        self.eval_ranges = tuple(ranges[: min(range_count, _RANGES)])
        at += _RANGES * _RANGE.size
        self.off_because, self.command = (text_of(field) for field in _TEXTS.unpack_from(data, at))
        counts = _COUNTS.unpack_from(data, at + _TEXTS.size)
        self.library_bound, self.code_bound, self.stack_bound, self.slot_bound, self.frames_used, self.text_used = (
            counts[:6]
        )
        self.generation, self.marked, self.closed, self.wrong_closes, self.exhausted, self.exhausted_at = counts[6:12]
        self.exhausted_error, self.exhausted_stack, _, self.exhausted_first = counts[12:16]
        self.uncounted = counts[16:]
        self._check(size, file_size, path)

    def _check(self, size: int, file_size: int, path: str) -> None:
        sections = self.sections
        bounds = {
            "libraries": self.library_bound,
            "codes": self.code_bound,
            "stacks": self.stack_bound,
            "slots": self.slot_bound,
            "frames": self.frames_used,
            "text": self.text_used,
        }
        inside = all(bound <= sections[name].count for name, bound in bounds.items())
        ends = max(section.offset + section.size * section.count for section in sections.values())
        if not inside or sections["slots"].count > HIGHEST_SLOTS or ends > size or size > file_size:
            raise RecordingFormatError(
                f"{path} is damaged: its sizes do not fit together",
                "it was cut short, copied only in part or overwritten: record again",
            )


def text_of(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "replace")
