"""Which line an instruction of Python's byte code belongs to, from the code object's own line table. Pure.

CPython has had three formats: pairs of bytes with signed line steps (`co_lnotab`, 3.6 to 3.9); the same with the ranges
of instructions that have no line marked (`co_linetable`, 3.10, PEP 626); entries of variable length that also hold
columns (`co_linetable`, 3.11+).
"""

from __future__ import annotations

from collections.abc import Iterator

from leakline.recorder.recording import Code

NO_LINE = 0
NO_LINE_STEP = -128  # 3.10: this range has no line, and the step does not count
UNIT = 2  # bytes of an instruction's unit; 3.11+ counts in units
NO_LOCATION, LONG, NO_COLUMNS, ONE_LINE = 15, 14, 13, range(10, 13)  # 3.11+: the kinds of entry; all others are short


def line_of(code: Code, instruction: int) -> int:
    """The line of the instruction at this offset (in bytes); of a frame that has not begun (-1) the first line.

    0 (NO_LINE) where Python says that it has none, and where the table does not reach or is damaged.
    """
    if instruction < 0:
        return code.first_line
    version = code.python_version >> 16
    if version < 0x030A:
        return _line_by_steps(code.lines, code.first_line, instruction)
    ranges = _ranges_of_pairs if version == 0x030A else _ranges_of_locations
    for end, line in ranges(code.lines, code.first_line):
        if instruction < end:
            return line
    return NO_LINE


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _line_by_steps(table: bytes, line: int, instruction: int) -> int:
    """The last line reached at or before the instruction: the table says where lines begin, not where code ends."""
    address = 0
    for step, line_step in zip(table[::2], table[1::2], strict=False):
        address += step
        if address > instruction:
            break
        line += _signed(line_step)
    return line


def _ranges_of_pairs(table: bytes, line: int) -> Iterator[tuple[int, int]]:
    """(end of a range of instructions in bytes, its line), in order."""
    end = 0
    for step, line_step in zip(table[::2], map(_signed, table[1::2]), strict=False):
        end += step
        if line_step == NO_LINE_STEP:
            yield end, NO_LINE
        else:
            line += line_step
            yield end, line


def _ranges_of_locations(table: bytes, line: int) -> Iterator[tuple[int, int]]:
    """(end of a range of instructions in bytes, its line). Only an entry's first byte has the highest bit."""
    end, position = 0, 0
    while position < len(table):
        first = table[position]
        kind = first >> 3 & 15
        end += ((first & 7) + 1) * UNIT
        if kind in (LONG, NO_COLUMNS):
            line += _signed_varint(table, position + 1)
        elif kind in ONE_LINE:
            line += kind - ONE_LINE.start
        yield end, NO_LINE if kind == NO_LOCATION else line
        position += 1
        while position < len(table) and not table[position] & 0x80:
            position += 1


def _signed_varint(table: bytes, position: int) -> int:
    """Six bits a byte, the lowest first; bit 6: another follows. The lowest bit of all is the sign."""
    value, shift = 0, 0
    for byte in table[position:]:
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
    return -(value >> 1) if value & 1 else value >> 1
