"""One socket's entry in an epoll of libzmq: found through /proc, and switched off and on again from any thread.

libzmq's poll set holds each descriptor with the address of its own bookkeeping (epoll.cpp: `pe->ev.data.ptr = pe`), and
switches an interest off with EPOLL_CTL_MOD and no events (reset_pollin). The kernel shows the same entry in
/proc/self/fdinfo, so the same can be done from outside: epoll_ctl() is thread-safe, and with the data given back as it
was libzmq cannot tell the difference. Closing an entry that is off works as ever, since it is still registered.

libzmq registers a listener some time after its bind, and where the kernel gives no more descriptors by then the look
must not need one: so the file is opened before the bind (`open_look`), and read until the entry is there.

Never for an entry that libzmq may be removing at this moment: its owner sees to that. Needs no library of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MOD: Final = 3
_CHUNK_BYTES: Final = 1 << 16
_ENTRY: Final = re.compile(rb"tfd:\s*(\d+) events:\s*[0-9a-f]+ data:\s*([0-9a-f]+)\s+pos:\d+ ino:([0-9a-f]+)")

_epoll_ctl = ctypes.CDLL(None, use_errno=True).epoll_ctl


class _Data(ctypes.Structure):
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class _PackedData(ctypes.Structure):  # struct epoll_event is packed on x86-64 alone (linux/eventpoll.h: EPOLL_PACKED)
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


_Event: Final = _PackedData if os.uname().machine == "x86_64" else _Data


@dataclass(frozen=True)
class EpollEntry:
    """`number` is registered with the epoll `epoll`, and comes back from it with `data`."""

    epoll: int
    number: int
    data: int

    def switch(self, on: bool) -> bool:
        """Have epoll report it when it is readable, or not at all. False if it is registered no more."""
        event = _Event(select.EPOLLIN if on else 0, self.data)
        return int(_epoll_ctl(self.epoll, _MOD, self.number, ctypes.byref(event))) == 0


def epolls() -> list[int]:
    """The numbers of this process's epolls. Needs a descriptor for a moment; OSError if it cannot be had."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, or the listing's own
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                found.append(int(name))
    return found


def open_look(epoll: int) -> int:
    """A descriptor for `find()`: through it `epoll` is looked at, now and later, without needing another one. It goes
    by the number: what the number is by then is what is seen. OSError if it cannot be had.
    """
    return os.open(f"/proc/self/fdinfo/{epoll}", os.O_RDONLY | os.O_CLOEXEC)


def find(number: int, looks: Mapping[int, int]) -> EpollEntry | None:
    """The entry of the socket `number` in one of the epolls, each with its `open_look()`; None if there is none yet.
    OSError if `number` is not open.
    """
    inode = os.fstat(number).st_ino
    for epoll, look in looks.items():
        with contextlib.suppress(FileNotFoundError):  # the epoll was closed
            for descriptor, data, registered in _ENTRY.findall(_read(look)):
                # A number can have been registered for a file that has since lost it: the inode tells.
                if int(descriptor) == number and int(registered, 16) == inode:
                    return EpollEntry(epoll, number, int(data, 16))
    return None


def _read(look: int) -> bytes:
    """All of it, as it is now: a read from the beginning makes the kernel write it anew (fs/seq_file.c)."""
    parts = []
    at = 0
    while part := os.pread(look, _CHUNK_BYTES, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
