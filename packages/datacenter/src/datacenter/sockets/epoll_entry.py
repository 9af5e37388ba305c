"""One socket's entry in an epoll of libzmq: found through /proc, and switched off and on again from any thread.

libzmq's poll set holds each descriptor with the address of its own bookkeeping (epoll.cpp: `pe->ev.data.ptr = pe`), and
switches an interest off with EPOLL_CTL_MOD and no events (reset_pollin). The kernel shows the same entry in
/proc/self/fdinfo, so the same can be done from outside: epoll_ctl() is thread-safe, and with the data given back as it
was libzmq cannot tell the difference. Closing an entry that is off works as ever, since it is still registered.

Never for an entry that libzmq may be removing at this moment: its owner sees to that. Needs no library of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
from dataclasses import dataclass
from typing import Final

_MOD: Final = 3
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


def find(number: int) -> EpollEntry | None:
    """The entry of the socket `number` in an epoll of this process; None if there is none yet. Needs two descriptors
    for a moment; OSError if they cannot be had.
    """
    inode = os.fstat(number).st_ino
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, or the listing's own
            if os.readlink(f"/proc/self/fd/{name}") != "anon_inode:[eventpoll]":
                continue
            with open(f"/proc/self/fdinfo/{name}", "rb") as file:
                for descriptor, data, registered in _ENTRY.findall(file.read()):
                    # A number can have been registered for a file that has since lost it: the inode tells.
                    if int(descriptor) == number and int(registered, 16) == inode:
                        return EpollEntry(int(name), number, int(data, 16))
    return None
