"""A forked child parts with the event loop that it inherited, so that whatever it does with that loop (to let an
exception unwind it is enough) its parent's goes on.

fork() copies a loop's memory, but what the loop waits with is shared: EPOLL_CTL_DEL in the child makes the parent deaf,
a read of its eventfd or self-pipe takes the parent's wake-up away, a signal to the child is written where the parent
reads its own, and the queues of libuv's io_uring are in memory that both write to (libuv 1.45 on, linux.c:
uv__iou_init; the parent then waits for ever, or aborts: `uv__epoll_ctl_flush`, `fd < loop->nwatchers`).

asyncio's loop gets a selector in its own memory. uvloop's is in C, and uv_loop_fork() cannot be called from outside: so
each of its descriptors is replaced, under its number, by a new one of the same kind: the epoll with the same interests,
the ring mapped where the old one was. What libuv believes stays true.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
import os
import re
import select
import selectors
import signal
import socket
import struct
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from datacenter.sockets import fork

T = TypeVar("T")
_SYS_IO_URING_SETUP: Final = 425  # on every architecture
_SETUP_NO_MMAP: Final = 1 << 14
#: struct io_uring_params: entries of both queues, flags, sq_off with the place of the slots and the address of the
#: submissions, cq_off with the address of the queues
_PARAMS: Final = struct.Struct("=2I I 28x 24x I 4x Q 32x Q")
_MAP_FIXED: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value
_SQES: Final = 0x10000000  # where in the ring's file they are
_WATCHED: Final = re.compile(r"^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)", re.MULTILINE)
_RING_MASK: Final = re.compile(r"^SqMask:\s*(\w+)", re.MULTILINE)

_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Home] = weakref.WeakKeyDictionary()
_before: dict[int, _LibuvLoop] = {}  # thread that forks -> its loop
_own_rings: dict[int, _Ring] = {}  # in a child


class _Home(NamedTuple):
    """Where a loop lives."""

    thread: int
    is_main: bool


class _Ring(NamedTuple):
    number: int
    entries: int
    maps: list[tuple[int, int, int]]  # address, bytes, offset


class _LibuvLoop(NamedTuple):
    """What one of uvloop's loops holds, as it was before a fork."""

    epoll: int
    watched: list[tuple[int, int]]  # number, events
    wakeups: int | None  # an eventfd
    signals: int | None  # the reading end of a pipe, whose other end has the next number
    self_pipe: int | None  # the same, of a socket pair
    ring: _Ring | None


def part_in_children(loop: asyncio.AbstractEventLoop) -> None:
    """Has forked children part with this loop. Call it in the loop's thread."""
    _loops[loop] = _Home(threading.get_ident(), threading.current_thread() is threading.main_thread())


# --- before the fork


def _look() -> None:
    """While a loop of uvloop's is whole: some of its numbers may be closed by the time Python runs in the child."""
    thread = threading.get_ident()
    for loop, home in list(_loops.items()):
        if home.thread != thread or loop.is_closed() or not hasattr(loop, "_get_backend_id"):
            continue
        with contextlib.suppress(OSError):
            _before[thread] = _look_at(loop._get_backend_id())


def _forget() -> None:
    _before.pop(threading.get_ident(), None)


def _look_at(epoll: int) -> _LibuvLoop:
    info = Path(f"/proc/self/fdinfo/{epoll}").read_text()
    watched = [(int(number), int(events, 16)) for number, events in _WATCHED.findall(info)]
    numbers = sorted(number for number, _ in watched)
    eventfds = [number for number in numbers if _link(number) == "anon_inode:[eventfd]"]
    pipes = [number for number in numbers if _link(number).startswith("pipe:") and _link(number) == _link(number + 1)]
    return _LibuvLoop(
        epoll,
        watched,
        next((number for number in eventfds if number > epoll), None),  # made with the loop: its first
        next((number for number in pipes if number > epoll), None),
        next((number for number in numbers if number > epoll and _is_unix(number) and _is_unix(number + 1)), None),
        _ring_at(epoll + 1),
    )


def _ring_at(number: int) -> _Ring | None:
    """libuv makes it right after the epoll."""
    if _link(number) != "anon_inode:[io_uring]":
        return None
    mask = _RING_MASK.search(Path(f"/proc/self/fdinfo/{number}").read_text())
    inode = str(os.fstat(number).st_ino)
    maps = []
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        if line.endswith("anon_inode:[io_uring]"):
            addresses, _, offset, _, found = line.split()[:5]
            begin, end = (int(address, 16) for address in addresses.split("-"))
            maps += [(begin, end - begin, int(offset, 16))] if found == inode else []
    if not mask or {offset for _, _, offset in maps} != {0, _SQES}:
        return _own_rings.get(number)
    return _Ring(number, int(mask[1], 16) + 1, maps)


def _is_unix(number: int) -> bool:
    """Whether it is a UNIX socket that has no name, as those of a pair."""
    if not _link(number).startswith("socket:"):
        return False
    with contextlib.suppress(OSError):
        borrowed = socket.socket(fileno=number)
        try:
            return borrowed.family == socket.AF_UNIX and not borrowed.getsockname()
        finally:
            borrowed.detach()
    return False


def _link(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


# --- in the child


def _part() -> None:
    thread = threading.get_ident()
    libuv = _before.pop(thread, None)
    _before.clear()
    wakeup = signal.set_wakeup_fd(-1)  # a signal to this process is no news for the parent's loop; 3.12 does the same
    is_own = True
    for loop, home in list(_loops.items()):
        if isinstance(loop, asyncio.SelectorEventLoop):
            _part_from_epoll(loop)
            _renew_self_pipe(loop, anew=home.thread == thread)
        elif home.is_main:
            ends = None if libuv is None else libuv.self_pipe
            is_own = ends is not None and _renew_pair(ends, ends + 1) and wakeup == ends + 1
    if libuv is not None:
        _renew_libuv(libuv)
    if is_own and wakeup >= 0 and _is_open(wakeup):
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)


def _part_from_epoll(loop: asyncio.SelectorEventLoop) -> None:
    shared = getattr(loop, "_selector", None)  # the same name in CPython 3.10 to 3.14
    if not isinstance(shared, selectors.EpollSelector):
        return
    own = selectors.PollSelector()
    for key in shared.get_map().values():
        if _is_open(key.fd):  # else ours, which is closed here
            own.register(key.fileobj, key.events, key.data)
    loop._selector = own  # type: ignore[attr-defined]
    fork.keep_for_ever(shared)


def _renew_self_pipe(loop: asyncio.SelectorEventLoop, *, anew: bool) -> None:
    """anew: also where it is closed here."""
    ends = [getattr(loop, name, None) for name in ("_ssock", "_csock")]
    numbers = [end.fileno() for end in ends if isinstance(end, socket.socket)]
    if len(numbers) == 2 and min(numbers) >= 0 and (anew or all(map(_is_open, numbers))):
        _renew_pair(*numbers)


def _renew_pair(reading: int, writing: int) -> bool:
    _plug(reading, writing)
    pair = _or_none(socket.socketpair)
    for end, number in zip(pair or (None, None), (reading, writing), strict=True):
        if end is not None:
            end.setblocking(False)
        _put(end.detach() if end is not None else None, number)
    return pair is not None


def _renew_libuv(loop: _LibuvLoop) -> None:
    """What cannot be had anew is closed: better that this loop aborts here than its parent's there."""
    _plug(loop.epoll, *_numbers(loop))
    if loop.ring is not None:
        _renew_ring(loop.ring)
    if loop.wakeups is not None:
        _put(_or_none(lambda: os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)), loop.wakeups)  # 1: looks once at all
    if loop.signals is not None:
        reading, writing = _or_none(lambda: os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)) or (None, None)
        _put(reading, loop.signals)
        _put(writing, loop.signals + 1)
    own = _or_none(select.epoll)
    if own is None:
        _put(None, loop.epoll)
        return
    for number, events in loop.watched:
        with contextlib.suppress(OSError):  # ours, which is closed here
            own.register(number, events)
    os.dup2(own.fileno(), loop.epoll, inheritable=False)
    own.close()


def _renew_ring(ring: _Ring) -> None:
    """Where the kernel makes none in this place: no ring, but not the parent's memory either."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    for address, size, _ in ring.maps:
        libc.mmap(address, size, writable, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_FIXED, -1, 0)
    queues, submissions = (next(each for each in ring.maps if each[2] == offset) for offset in (0, _SQES))
    params = ctypes.create_string_buffer(_PARAMS.pack(0, 0, _SETUP_NO_MMAP, 0, submissions[0], queues[0]))
    new = int(libc.syscall(_SYS_IO_URING_SETUP, ring.entries, params))  # in this memory: Linux 6.5
    if new < 0:  # before, it could be mapped anywhere
        params = ctypes.create_string_buffer(_PARAMS.size)
        new = int(libc.syscall(_SYS_IO_URING_SETUP, ring.entries, params))
        for address, size, offset in ring.maps if new >= 0 else ():
            libc.mmap(address, size, writable, mmap.MAP_SHARED | _MAP_FIXED, new, offset)
    slots = _PARAMS.unpack_from(params)[3]
    if new >= 0 and slots + 4 * ring.entries <= queues[1]:  # libuv believes that they are in their order
        ctypes.memmove(queues[0] + slots, struct.pack(f"{ring.entries}I", *range(ring.entries)), 4 * ring.entries)
    _put(new if new >= 0 else None, ring.number)
    _own_rings[ring.number] = ring


def _numbers(loop: _LibuvLoop) -> list[int]:
    signals = [] if loop.signals is None else [loop.signals, loop.signals + 1]
    wakeups = [] if loop.wakeups is None else [loop.wakeups]
    return [*signals, *wakeups, *([] if loop.ring is None else [loop.ring.number])]


def _plug(*numbers: int) -> None:
    """Those that are closed here: what is opened to take the place of one must not come at that of another."""
    for number in numbers:
        if not _is_open(number):
            with contextlib.suppress(OSError):
                _put(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), number)


def _or_none(make: Callable[[], T]) -> T | None:
    try:
        return make()
    except OSError:
        return None


def _put(new: int | None, number: int) -> None:
    """Makes `number` mean what `new` does, and nothing where there is none. Owns `new`."""
    if new is None:
        with contextlib.suppress(OSError):
            os.close(number)
    elif new != number:
        os.dup2(new, number, inheritable=False)
        os.close(new)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


fork.in_child(_part)
os.register_at_fork(before=_look, after_in_parent=_forget)
