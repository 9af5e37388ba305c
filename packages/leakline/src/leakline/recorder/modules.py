"""The file that was mapped, and the file that describes it: found again by what they are, not by where they lay.

A library may have been replaced since it was mapped (an upgrade, a rebuild), or lie in a container's own tree. Names
from another build would be wrong ones, so a file counts only with the build id of the recording.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from leakline.recorder.elf import Elf, ElfError, open_elf
from leakline.recorder.recording import Library

DEBUG_FOLDERS = ("/usr/lib/debug",)
_CHUNK = 1 << 20


class OpenFile(NamedTuple):
    """An ELF file and the descriptor that reads it; to be closed with `os.close(file.descriptor)`."""

    elf: Elf
    descriptor: int


def find_module(library: Library, pid: int | None, unchanged_since_s: float | None) -> OpenFile | str:
    """The file that a library was mapped from, or in words why there is none.

    `pid`: the process, if it is alive: it keeps a deleted file readable. `unchanged_since_s` (seconds since the epoch)
    serves where there is no build id: a file that changed after it is another one.
    """
    reason = "is not there any more"
    for path in _paths(library, pid):
        try:
            elf, descriptor = open_elf(path)
        except (OSError, ElfError) as error:
            if isinstance(error, PermissionError):
                reason = "may not be read"
            elif isinstance(error, ElfError):
                reason = str(error)
            continue
        if _same(library, path, elf, descriptor, unchanged_since_s):
            return OpenFile(elf, descriptor)
        os.close(descriptor)
        reason = "was replaced since it was loaded"
    return reason


def _same(library: Library, path: str, elf: Elf, descriptor: int, unchanged_since_s: float | None) -> bool:
    if library.build_id or elf.build_id:
        return library.build_id == elf.build_id
    if "/map_files/" in path:
        return os.readlink(path).removesuffix(" (deleted)") == library.path
    return unchanged_since_s is None or os.fstat(descriptor).st_ctime <= unchanged_since_s


def _paths(library: Library, pid: int | None) -> Iterator[str]:
    if not library.path.startswith("/"):
        return
    if pid is not None and not library.unloaded:
        yield from _mapped(library, pid)
    if pid is not None:
        yield f"/proc/{pid}/root{library.path}"
    yield library.path


def _mapped(library: Library, pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/map_files"
    with suppress(OSError, ValueError):
        for name in os.listdir(folder):
            if library.start <= int(name.partition("-")[0], 16) < library.end:
                yield f"{folder}/{name}"
                return


def find_debug_file(elf: Elf, path: str, pid: int | None, folders: tuple[str, ...]) -> OpenFile | None:
    """The separate file with the debug information of a stripped one: by build id, else by `.gnu_debuglink`."""
    for candidate in _debug_paths(elf, path, pid, folders):
        try:
            debug, descriptor = open_elf(candidate)
        except (OSError, ElfError):
            continue
        if debug.build_id == elf.build_id if debug.build_id and elf.build_id else _has_checksum(elf, descriptor):
            return OpenFile(debug, descriptor)
        os.close(descriptor)
    return None


def _debug_paths(elf: Elf, path: str, pid: int | None, folders: tuple[str, ...]) -> Iterator[str]:
    roots = ["", *([f"/proc/{pid}/root"] if pid is not None else [])]
    if elf.build_id:
        identity = elf.build_id.hex()
        for folder in folders:
            yield from (f"{root}{folder}/.build-id/{identity[:2]}/{identity[2:]}.debug" for root in roots)
    name = elf.debug_link.name if elf.debug_link else ""
    if name and "/" not in name:
        here = os.path.dirname(path)
        real = os.path.dirname(os.path.realpath(path))
        for place in dict.fromkeys((here, real)):
            for folder in (place, f"{place}/.debug", *(f"{folder}{place}" for folder in folders)):
                yield from (f"{root}{folder}/{name}" for root in roots)


def _has_checksum(elf: Elf, descriptor: int) -> bool:
    if elf.debug_link is None:
        return False
    crc = offset = 0
    while chunk := os.pread(descriptor, _CHUNK, offset):
        crc = zlib.crc32(chunk, crc)
        offset += len(chunk)
    return crc == elf.debug_link.crc
