"""The functions that an ELF library exports: of a file, or of one that another process has loaded.

Only what finding a function by name takes; names and lines for people are elf.py's and symbols.py's. 64-bit,
little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable

from leakline.recorder.errors import RecorderError

Read = Callable[[int, int], bytes]  # (address relative to the library, size) -> that many bytes

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH, _DT_VERSYM = 4, 5, 6, 10, 0x6FFFFEF5, 0x6FFFFFF0
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")
_HIDDEN = 0x8000  # in DT_VERSYM: an old version, kept for programs that were linked with it
_LARGEST = 1 << 26  # bytes of one table


class ExportsError(RecorderError):
    """Not an ELF image that can be read."""


class Exports:
    """An image: `read` takes addresses as the file has them (before the library is moved to where it is loaded)."""

    def __init__(self, read: Read, header: bytes, segments: bytes) -> None:
        self._read = read
        _header(header)
        self.segments = list(_SEGMENT.iter_unpack(segments))

    @classmethod
    def in_file(cls, path: str | os.PathLike[str]) -> Exports:
        """Raises OSError, ExportsError."""

        def at(offset: int, size: int) -> bytes:
            with open(path, "rb", buffering=0) as file:
                return os.pread(file.fileno(), size, offset)

        def read(address: int, size: int) -> bytes:
            for kind, _, offset, start, _, in_file, _, _ in image.segments:
                if kind == PT_LOAD and start <= address < start + in_file:
                    return at(offset + address - start, size)
            return b""

        content = at(0, _HEADER.size)
        header = _header(content)
        image = cls(read, content, at(header[5], header[9] * header[10]))
        return image

    @classmethod
    def in_memory(cls, read: Read, base: int) -> Exports:
        """`read` takes absolute addresses; `base` is where the file's beginning is mapped. Raises ExportsError."""
        header = _header(read(base, _HEADER.size))
        segments = read(base + header[5], header[9] * header[10])
        first = next(
            (start for kind, _, offset, start, *_ in _SEGMENT.iter_unpack(segments) if kind == PT_LOAD and not offset),
            0,
        )
        bias = base - first
        image = cls(lambda address, size: read(bias + address, size), read(base, _HEADER.size), segments)
        image._bias = bias
        return image

    _bias = 0

    def symbols(self, names: Iterable[str]) -> dict[str, int]:
        """Addresses of the functions that it defines under these names, in their current version; absolute ones for an
        image in memory.
        """
        dynamic = self._dynamic()
        if not {_DT_STRTAB, _DT_SYMTAB, _DT_STRSZ} <= dynamic.keys():
            return {}
        count = self._symbol_count(dynamic)
        strings = self._table(dynamic[_DT_STRTAB], dynamic[_DT_STRSZ])
        table = self._table(dynamic[_DT_SYMTAB], count * _SYMBOL.size)
        versions = self._table(dynamic[_DT_VERSYM], count * 2) if _DT_VERSYM in dynamic else b"\0" * count * 2
        wanted = {name.encode() for name in names}
        found: dict[str, int] = {}
        for index, (name_at, _, _, section, value, _) in enumerate(_SYMBOL.iter_unpack(table)):
            name = strings[name_at : strings.find(b"\0", name_at)]
            if name not in wanted or not section:
                continue
            if not versions[2 * index + 1] & _HIDDEN >> 8 or name.decode() not in found:
                found[name.decode()] = self._bias + value
        return found

    def interpreter(self) -> str:
        """The dynamic loader that the program asks for; "" for a library or a static program."""
        for kind, _, _, start, _, size, _, _ in self.segments:
            if kind == PT_INTERP:
                return os.fsdecode(self._table(start, size).rstrip(b"\0"))
        return ""

    def _dynamic(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for kind, _, _, start, _, _, size, _ in self.segments:
            if kind != PT_DYNAMIC:
                continue
            for tag, value in _DYNAMIC.iter_unpack(self._table(start, size // _DYNAMIC.size * _DYNAMIC.size)):
                if tag == 0:
                    break
                found[tag] = value
        # glibc has made these absolute in memory, a file and musl have them relative.
        for tag in (_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH, _DT_VERSYM):
            if self._bias and found.get(tag, 0) >= self._bias:
                found[tag] -= self._bias
        return found

    def _symbol_count(self, dynamic: dict[int, int]) -> int:
        if _DT_HASH in dynamic:
            return int(struct.unpack("<II", self._table(dynamic[_DT_HASH], 8))[1])
        if _DT_GNU_HASH not in dynamic:
            return 0
        start = dynamic[_DT_GNU_HASH]
        buckets, first, words, _ = struct.unpack("<IIII", self._table(start, 16))
        chains = start + 16 + words * 8 + buckets * 4
        last = max(struct.unpack(f"<{buckets}I", self._table(start + 16 + words * 8, buckets * 4)), default=0)
        if last < first:
            return int(first)
        while not self._table(chains + (last - first) * 4, 4)[0] & 1:
            last += 1
        return int(last) + 1

    def _table(self, address: int, size: int) -> bytes:
        data = self._read(address, size) if 0 <= size <= _LARGEST else b""
        if len(data) != size:
            raise ExportsError("an ELF table could not be read", "the library is damaged, or is being replaced")
        return data


def _header(data: bytes) -> tuple[int, ...]:
    if len(data) < _HEADER.size or data[:4] != b"\x7fELF":
        raise ExportsError("this is no ELF image")
    if data[4:6] != b"\x02\x01":
        raise ExportsError("this is no 64-bit little-endian ELF image")
    return _HEADER.unpack_from(data)
