"""Where uvloop's loop keeps its descriptors: read in libuv's memory, as nobody tells them.

uvloop tells the number of its epoll (`Loop._get_backend_id`). The address of its uv_loop_t is a member of the loop's
own struct: the one behind which that number stands where libuv keeps it, and whose eventfd's watcher is in the list of
watchers. The layout is libuv's public ABI, which does not change within version 1 (uv.h, unix.h: struct uv_loop_s and
uv__io_s; offsets by offsetof(3) of 1.52, the same fields since 1.0).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import platform
import re
import struct
from pathlib import Path
from typing import Final, NamedTuple

SQES: Final = 0x10000000  # where in a ring's file the submissions are; its queues are at 0
_INTERNAL, _BACKEND, _WATCHERS, _NWATCHERS = 40, 64, 104, 112
#: async_io_watcher, signal_pipefd
_BY_MACHINE: Final = {"x86_64": (456, 552), "aarch64": (464, 560)}
_IO = struct.Struct("=40x I I i")  # uv__io_t: pevents, events, fd
_INTERNAL_BYTES: Final = 1024  # of uv__loop_internal_fields_t, in which the ring's addresses are
_MOST_WATCHERS: Final = 1 << 24
_RING_MASK: Final = re.compile(r"^SqMask:\s*(\w+)", re.MULTILINE)


class Ring(NamedTuple):
    """An io_uring. `maps`: address, bytes, offset in its file."""

    number: int
    entries: int
    maps: list[tuple[int, int, int]]


class LibuvLoop:
    """The loop of a uvloop.Loop. Not to be used once that is closed. Reads memory that its thread may write: what it
    says is certain in that thread, and in a forked child.
    """

    def __init__(self, address: int, epoll: int) -> None:
        self.epoll = epoll
        self.ring: Ring | None = None
        self._address = address
        self._io, self._pipe = _BY_MACHINE[platform.machine()]

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LibuvLoop | None:
        """None if it is none of uvloop's, or not as known here."""
        if not hasattr(loop, "_get_backend_id") or platform.machine() not in _BY_MACHINE or loop.is_closed():
            return None
        epoll = int(loop._get_backend_id())
        words = type(loop).__basicsize__ // 8
        for address in struct.unpack(f"={words}Q", ctypes.string_at(id(loop), 8 * words)):
            made = cls(address, epoll)
            if made._is_it():
                with contextlib.suppress(OSError):
                    made.find_ring()
                return made
        return None

    @property
    def wakeups(self) -> int:
        """The eventfd by which other threads wake it; -1: none."""
        return self._int(self._io + 48)

    @property
    def signals(self) -> tuple[int, int] | None:
        """Both ends of the pipe in which libuv's signal handler writes; None: none."""
        ends = (self._int(self._pipe), self._int(self._pipe + 4))
        return ends if min(ends) >= 0 else None

    def watched(self) -> list[tuple[int, int]]:
        """What is in its epoll: number, events."""
        count, at = self._int(_NWATCHERS), self._word(_WATCHERS)
        found = []
        for pointer in struct.unpack(f"={count}Q", ctypes.string_at(at, 8 * count)) if at else ():
            if pointer:
                wanted, events, number = _IO.unpack(ctypes.string_at(pointer, _IO.size))
                if events and wanted:
                    found.append((number, wanted))
        return found

    def find_ring(self) -> None:
        """Sets `ring`, if it has one. Raises OSError: /proc cannot be read now."""
        known = _read(self._word(_INTERNAL), _INTERNAL_BYTES)
        maps: dict[str, list[tuple[int, int, int]]] = {}  # by inode
        for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
            if line.endswith("anon_inode:[io_uring]"):
                addresses, _, offset, _, inode = line.split()[:5]
                begin, end = (int(address, 16) for address in addresses.split("-"))
                maps.setdefault(inode, []).append((begin, end - begin, int(offset, 16)))
        ours = {
            inode: found
            for inode, found in maps.items()
            if {offset for _, _, offset in found} == {0, SQES}
            and any(struct.pack("=Q", begin) in known for begin, _, offset in found if not offset)
        }
        for name in os.listdir("/proc/self/fd") if ours else ():
            with contextlib.suppress(OSError):
                inode = str(os.stat(f"/proc/self/fd/{name}").st_ino)
                if inode in ours and os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[io_uring]":
                    mask = _RING_MASK.search(Path(f"/proc/self/fdinfo/{name}").read_text())
                    if mask is not None:
                        self.ring = Ring(int(name), int(mask[1], 16) + 1, ours[inode])

    def _is_it(self) -> bool:
        size = max(_NWATCHERS + 4, self._io + _IO.size, self._pipe + 8)
        held = _read(self._address, size) if self._address % 8 == 0 and self._address >= 4096 else b""
        if len(held) < size or struct.unpack_from("=i", held, _BACKEND)[0] != self.epoll:
            return False
        watchers, count = struct.unpack_from("=QI", held, _WATCHERS)
        number = struct.unpack_from("=i", held, self._io + 48)[0]
        if not 0 <= number < count < _MOST_WATCHERS:
            return False
        return _read(watchers + 8 * number, 8) == struct.pack("=Q", self._address + self._io)

    def _word(self, offset: int) -> int:
        return int(ctypes.c_uint64.from_address(self._address + offset).value)

    def _int(self, offset: int) -> int:
        return int(ctypes.c_int32.from_address(self._address + offset).value)


def _read(address: int, size: int) -> bytes:
    """Memory of this process; less of it, or none, where it cannot be read."""
    held = ctypes.create_string_buffer(size)

    class Piece(ctypes.Structure):
        _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t))

    here, there = Piece(ctypes.addressof(held), size), Piece(address, size)
    got = ctypes.CDLL(None, use_errno=True).process_vm_readv(
        os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0
    )
    return held.raw[: max(0, int(got))]
