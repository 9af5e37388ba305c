"""Reads from an ELF file what naming an address needs: build id, where its debug file is, function symbols.

Only `pread`: a file that is cut short while it is read is an error, not a SIGBUS. 64-bit little-endian, as both
machines that leakline records on are. Lines and inlined functions are in DWARF, which is `symbols`' matter.
"""

from __future__ import annotations

import bisect
import lzma
import os
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

Reader = Callable[[int, int], bytes]  # offset, size -> that many bytes, or fewer at the end

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_PT_LOAD, _PT_NOTE = 1, 4
_SHT_NOBITS, _SHN_XINDEX = 8, 0xFFFF
_NT_GNU_BUILD_ID = 3
_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_SYMBOL_WORDS = 3  # of 8 bytes: name, info, other, section; value; size
_LARGEST_TABLE = 1 << 30  # bytes of a symbol table, or of a compressed one when it is unpacked
_LARGEST_NOTE = 1 << 16
_MOST_SECTIONS = 1 << 20
_LONGEST_NAME = 1 << 14
_OVERLAPS = 16  # symbols that may lie between one that covers an address and the address


class ElfError(Exception):
    """The bytes are not an ELF file that can be read here."""


class Section(NamedTuple):
    kind: int
    address: int
    offset: int
    size: int
    texts: int  # offset of the section that it links to


class DebugLink(NamedTuple):
    """`.gnu_debuglink`: the file name of the debug file, and the CRC-32 of its content."""

    name: str
    crc: int


class Segment(NamedTuple):
    address: int
    offset: int
    size: int  # in the file


class Elf(msgspec.Struct, frozen=True):
    """What an ELF file is."""

    read: Reader
    segments: tuple[Segment, ...]  # those that are loaded
    sections: dict[str, Section]
    build_id: bytes
    debug_link: DebugLink | None

    @property
    def base(self) -> int:
        """The address of the first loaded segment."""
        return self.segments[0].address if self.segments else 0

    def code(self, address: int, size: int) -> bytes:
        """Bytes at an address, as they are loaded."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                return self.read(segment.offset + address - segment.address, size)
        return b""

    def content(self, name: str) -> bytes:
        """The bytes of a section; empty if there is none, or if it was moved to a debug file."""
        section = self.sections.get(name)
        if section is None or section.kind == _SHT_NOBITS or section.size > _LARGEST_TABLE:
            return b""
        return self.read(section.offset, section.size)

    def has(self, name: str) -> bool:
        """Whether the section is there with its content."""
        section = self.sections.get(name)
        return section is not None and section.kind != _SHT_NOBITS and section.size > 0


def open_elf(path: str) -> tuple[Elf, int]:
    """An ELF file and the descriptor that reads it, which the caller closes. Raises OSError and ElfError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return parse_elf(lambda offset, size: os.pread(file, size, offset)), file
    except BaseException:
        os.close(file)
        raise


def parse_elf(read: Reader) -> Elf:
    """The headers of an ELF file. Raises ElfError."""
    try:
        return _parse(read)
    except (struct.error, ValueError, OverflowError, IndexError) as error:
        raise ElfError(f"damaged: {error}") from error


def _parse(read: Reader) -> Elf:
    start = read(0, _HEADER.size)
    if start[:4] != b"\x7fELF":
        raise ElfError("not an ELF file")
    if start[4:6] != b"\x02\x01":
        raise ElfError("not a 64-bit little-endian ELF file")
    fields = _HEADER.unpack(start)
    program_offset, section_offset = fields[5], fields[6]
    program_count, section_count, names_index = fields[10], fields[12], fields[13]
    programs = list(_PROGRAM.iter_unpack(read(program_offset, program_count * _PROGRAM.size)))
    sections = _sections(read, section_offset, section_count, names_index)
    notes = [(section.offset, section.size) for name, section in sections.items() if name == ".note.gnu.build-id"]
    notes += [(program[2], program[5]) for program in programs if program[0] == _PT_NOTE]
    return Elf(
        read=read,
        segments=tuple(Segment(row[3], row[2], row[5]) for row in programs if row[0] == _PT_LOAD),
        sections=sections,
        build_id=next(filter(None, (_build_id(read(offset, min(size, _LARGEST_NOTE))) for offset, size in notes)), b""),
        debug_link=_debug_link(read, sections.get(".gnu_debuglink")),
    )


def _sections(read: Reader, offset: int, count: int, names_index: int) -> dict[str, Section]:
    if not offset:
        return {}
    first = _SECTION.unpack(read(offset, _SECTION.size))
    count = count or first[5]  # more than 65 279 sections: the counts are in the first one
    names_index = first[6] if names_index == _SHN_XINDEX else names_index
    rows = list(_SECTION.iter_unpack(read(offset, min(count, _MOST_SECTIONS) * _SECTION.size)))
    names = read(rows[names_index][4], min(rows[names_index][5], _LARGEST_TABLE))
    found: dict[str, Section] = {}
    for row in rows:
        # Of a symbol table, sh_link is the section with its texts.
        texts = rows[row[6]][4] if row[6] < len(rows) else 0
        found.setdefault(_text(names, row[0]), Section(row[1], row[3], row[4], row[5], texts))
    return found


def _text(names: bytes, start: int) -> str:
    end = names.find(b"\0", start, start + _LONGEST_NAME)
    return names[start : end if end >= 0 else start + _LONGEST_NAME].decode("utf-8", "replace")


def _build_id(notes: bytes) -> bytes:
    position = 0
    while position + _NOTE.size <= len(notes):
        name_size, size, kind = _NOTE.unpack_from(notes, position)
        name_start = position + _NOTE.size
        start = name_start + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[name_start : name_start + 4] == b"GNU\0":
            return notes[start : start + size]
        position = start + (size + 3 & ~3)
    return b""


def _debug_link(read: Reader, section: Section | None) -> DebugLink | None:
    if section is None or section.kind == _SHT_NOBITS or not 8 <= section.size <= _LARGEST_NOTE:
        return None
    content = read(section.offset, section.size)
    return DebugLink(_text(content, 0), int.from_bytes(content[-4:], "little"))


class Symbols:
    """The functions of a symbol table, by address. Only those that say how long they are: the nearest one before an
    address is a wrong name as soon as a function between is not in the table.
    """

    def __init__(self, tables: Iterable[tuple[bytes, bytes]]) -> None:
        self._names: list[bytes] = []
        rows: list[tuple[int, int, int, int]] = []
        for number, (entries, names) in enumerate(tables):
            self._names.append(names)
            words = array("Q", entries[: len(entries) // 24 * 24])
            for head, value, size in zip(
                words[::_SYMBOL_WORDS], words[1::_SYMBOL_WORDS], words[2::_SYMBOL_WORDS], strict=True
            ):
                # head: name (32 bits), type and binding (8), visibility (8), section (16; 0: imported)
                if size and head >> 32 & 15 in (_STT_FUNC, _STT_GNU_IFUNC) and head >> 48:
                    rows.append((value, value + size, head & 0xFFFFFFFF, number))
        rows.sort()
        self._rows: Sequence[tuple[int, int, int, int]] = rows
        self._starts = [row[0] for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, address: int) -> list[str]:
        """Names of the innermost function that covers an address: several if it has several, the plainest first."""
        names: list[str] = []
        start = -1
        index = bisect.bisect_right(self._starts, address) - 1
        misses = 0
        while index >= 0 and misses < _OVERLAPS:
            value, end, name, table = self._rows[index]
            if names and value != start:
                break
            if end > address:
                start = value
                names.append(_text(self._names[table], name).partition("@")[0])  # without a symbol version
            else:
                misses += 1
            index -= 1
        return sorted(set(filter(None, names)), key=lambda name: (name.startswith("_"), len(name), name))


def symbol_tables(elf: Elf) -> list[tuple[bytes, bytes]]:
    """The best symbol table of a file as (entries, names): all functions, else the exported ones with those of a
    compressed "mini" debug section, which Fedora's and Red Hat's stripped libraries have.
    """
    if elf.has(".symtab"):
        return [_table(elf, ".symtab")]
    tables = [_table(elf, ".dynsym")] if elf.has(".dynsym") else []
    packed = elf.content(".gnu_debugdata")
    if packed:
        try:
            data = lzma.LZMADecompressor().decompress(packed, _LARGEST_TABLE)
            mini = parse_elf(lambda offset, size: data[offset : offset + size])
        except (lzma.LZMAError, ElfError):
            return tables
        if mini.has(".symtab"):
            tables.append(_table(mini, ".symtab"))
    return tables


def _table(elf: Elf, name: str) -> tuple[bytes, bytes]:
    names = next((other for other in elf.sections.values() if other.offset == elf.sections[name].texts), None)
    return elf.content(name), elf.read(names.offset, min(names.size, _LARGEST_TABLE)) if names else b""
