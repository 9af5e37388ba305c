"""A forked child parts with the event loops that it inherited, so that whatever it does with one (to let an exception
unwind it is enough) its parent's goes on.

fork() copies a loop's memory, but what the loop waits with is shared: EPOLL_CTL_DEL in the child makes the parent deaf,
a read of its eventfd or self-pipe takes the parent's wake-up away, a signal to the child is written where the parent
reads its own, and the queues of libuv's io_uring are in memory that both write to (libuv 1.45 on, linux.c:
uv__iou_init; the parent then waits for ever, or aborts: `uv__epoll_ctl_flush`, `fd < loop->nwatchers`).

asyncio's loop gets a selector in its own memory. uvloop's is in C, and uv_loop_fork() cannot be called from outside: so
each of its descriptors is replaced, under its number, by a new one of the same kind: the epoll with the same interests,
the ring mapped where the old one was. What libuv believes stays true. What they are is read in the child, in libuv's
memory (libuv_memory.py): that needs no descriptor, and nothing moves there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import mmap
import os
import select
import selectors
import signal
import socket
import struct
import threading
import weakref
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from datacenter.sockets import fork
from datacenter.sockets.libuv_memory import SQES, LibuvLoop, Ring

T = TypeVar("T")
_SYS_IO_URING_SETUP: Final = 425  # on every architecture
_SETUP_NO_MMAP: Final = 1 << 14
#: struct io_uring_params: entries of both queues, flags, sq_off with the place of the slots and the address of the
#: submissions, cq_off with the address of the queues
_PARAMS: Final = struct.Struct("=2I I 28x 24x I 4x Q 32x Q")
_MAP_FIXED: Final = 0x10


class _Known(NamedTuple):
    """`thread`: where it lives. `libuv`: None of asyncio's own."""

    thread: int
    libuv: LibuvLoop | None


_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Known] = weakref.WeakKeyDictionary()


def part_in_children(loop: asyncio.AbstractEventLoop) -> None:
    """Has forked children part with this loop. Call it in the loop's thread; cheap for one that is known."""
    known = _loops.get(loop)
    if known is None:
        _loops[loop] = _Known(threading.get_ident(), LibuvLoop.of(loop))
    elif known.libuv is not None and known.libuv.ring is None:
        with contextlib.suppress(OSError):
            known.libuv.find_ring()


def _part() -> None:
    wakeup = -1
    with contextlib.suppress(ValueError):  # not in the main thread: C code forked, and nobody told Python
        wakeup = signal.set_wakeup_fd(-1)  # a signal to this process is no news for the parent's loop; so does 3.12
    self_pipes: dict[int, bool] = {}  # writing end -> whether it is the child's own
    for loop, known in list(_loops.items()):
        # Of a loop that has no number here any more (a command's: they are in the ledger) only the forking thread's can
        # be run; and libuv's signal handler writes in all.
        here = known.thread == threading.get_ident()
        # One that fails must not keep the others shared. Nothing can be said here: a lock may be held by nobody.
        with contextlib.suppress(Exception):
            if isinstance(loop, asyncio.SelectorEventLoop):
                _part_from_epoll(loop)
        with contextlib.suppress(Exception):
            ends = _self_pipe_of(loop)
            if ends is not None:
                self_pipes[ends[1]] = False
                self_pipes[ends[1]] = (here or all(map(_is_open, ends))) and _renew_pair(*ends)
        with contextlib.suppress(Exception):
            if known.libuv is not None and not loop.is_closed():
                if here or _is_open(known.libuv.epoll):
                    _renew_libuv(known.libuv)
                else:
                    _renew_signals(known.libuv)
    if wakeup >= 0 and self_pipes.get(wakeup, True) and _is_open(wakeup):
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)


def _part_from_epoll(loop: asyncio.SelectorEventLoop) -> None:
    shared = getattr(loop, "_selector", None)  # the same name in CPython 3.10 to 3.14
    if not isinstance(shared, selectors.EpollSelector):
        return
    own = selectors.PollSelector()
    for key in shared.get_map().values():
        if _is_open(key.fd):  # else ours, which is closed here
            with contextlib.suppress(ValueError, KeyError):  # a socket that was closed, its number another's
                own.register(key.fileobj, key.events, key.data)
    loop._selector = own  # type: ignore[attr-defined]
    fork.keep_for_ever(shared)


def _self_pipe_of(loop: asyncio.AbstractEventLoop) -> tuple[int, int] | None:
    """Its two ends: where it reads, and where Python's signal handler and other threads write."""
    if isinstance(loop, asyncio.SelectorEventLoop):
        ends = [getattr(loop, "_ssock", None), getattr(loop, "_csock", None)]
    else:  # uvloop's are members of a C struct: in their order
        ends = [each for each in gc.get_referents(loop) if isinstance(each, socket.socket)]
    numbers = [end.fileno() for end in ends if isinstance(end, socket.socket)]
    return (numbers[0], numbers[1]) if len(numbers) == 2 and min(numbers) >= 0 else None


def _renew_pair(reading: int, writing: int) -> bool:
    _plug(reading, writing)
    pair = _or_none(socket.socketpair)
    for end, number in zip(pair or (None, None), (reading, writing), strict=True):
        if end is not None:
            end.setblocking(False)
        _put(end.detach() if end is not None else None, number)
    return pair is not None


# --- libuv


def _renew_libuv(loop: LibuvLoop) -> None:
    """What cannot be had anew is closed: better that this loop aborts here than its parent's there."""
    if loop.ring is None:
        with contextlib.suppress(OSError):
            loop.find_ring()
    watched, wakeups, ring = loop.watched(), loop.wakeups, loop.ring
    _plug(loop.epoll, *([wakeups] if wakeups >= 0 else []), *(loop.signals or ()), *([ring.number] if ring else []))
    if ring is not None:
        _renew_ring(ring)
    if wakeups >= 0:
        _put(_or_none(lambda: os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)), wakeups)  # 1: looks once at all
    _renew_signals(loop)
    own = _or_none(select.epoll)
    for number, events in watched if own is not None else ():
        with contextlib.suppress(OSError):  # ours, which is closed here
            own.register(number, events)  # type: ignore[union-attr]
    _put(os.dup(own.fileno()) if own is not None else None, loop.epoll)


def _renew_signals(loop: LibuvLoop) -> None:
    if loop.signals is not None:
        _plug(*loop.signals)
        made = _or_none(lambda: os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)) or (None, None)
        for end, number in zip(made, loop.signals, strict=True):
            _put(end, number)


def _renew_ring(ring: Ring) -> None:
    """Where the kernel makes none in this place: no ring, but not the parent's memory either."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    for address, size, _ in ring.maps:
        libc.mmap(address, size, writable, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_FIXED, -1, 0)
    queues, submissions = (next(each for each in ring.maps if each[2] == offset) for offset in (0, SQES))
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


# --- numbers


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
    """Makes `number` mean what `new` does, and nothing where that cannot be. Owns `new`."""
    if new == number:
        return
    try:
        if new is None:
            os.close(number)
        else:
            os.dup2(new, number, inheritable=False)
    except OSError:  # a limit that was lowered below it
        with contextlib.suppress(OSError):
            os.close(number)
    finally:
        if new is not None:
            os.close(new)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


fork.in_child(_part)
