"""The system call that a thread sleeps in, and what it waits for there: a lock, or descriptors.

From /proc/PID/task/TID/syscall: number and arguments as they are in the registers. What poll() waits for stands in the
process's memory, of which these few bytes are read. Both need the right to trace the process; without it, None.
"""

from __future__ import annotations

import os
import struct

from leakline.facts import Wait

_FIRST_ARGUMENT = ("read", "write", "recvfrom", "sendto", "recvmsg", "sendmsg", "accept", "accept4", "connect", "readv")
_EPOLL = ("epoll_wait", "epoll_pwait", "epoll_pwait2")
_CALLS = {  # arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
    "x86_64": {
        0: "read",
        1: "write",
        7: "poll",
        19: "readv",
        23: "select",
        42: "connect",
        43: "accept",
        44: "sendto",
        45: "recvfrom",
        46: "sendmsg",
        47: "recvmsg",
        202: "futex",
        232: "epoll_wait",
        270: "pselect6",
        271: "ppoll",
        281: "epoll_pwait",
        288: "accept4",
        426: "io_uring_enter",
        441: "epoll_pwait2",
    },
    "aarch64": {
        63: "read",
        64: "write",
        65: "readv",
        72: "pselect6",
        73: "ppoll",
        98: "futex",
        202: "accept",
        203: "connect",
        206: "sendto",
        207: "recvfrom",
        211: "sendmsg",
        212: "recvmsg",
        242: "accept4",
        426: "io_uring_enter",
        22: "epoll_pwait",
        441: "epoll_pwait2",
    },
}.get(os.uname().machine, {})
_MOST_POLLED, _FD_SETSIZE = 16, 1024
_FUTEX_FLAGS = 128 | 256  # FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME
_FUTEX_WAIT, _FUTEX_LOCK_PI, _FUTEX_LOCK_PI2 = 0, 6, 13
_LOCKED_WITH_WAITERS = 2  # glibc's value of a mutex for which somebody waits (nptl/lowlevellock.c)


def read_wait(pid: int, tid: int) -> Wait | None:
    """Where the thread sleeps; None if it runs, or this may not be read."""
    try:
        with open(f"/proc/{pid}/task/{tid}/syscall", "rb") as file:
            words = file.read().split()
        call, arguments = int(words[0]), [int(word, 16) for word in words[1:7]]
    except (OSError, ValueError, IndexError):  # "running", or "-1 …" outside of a system call has too few words
        return None
    if len(arguments) < 6:
        return None
    name = _CALLS.get(call, "other")
    if name == "futex":
        return _of_futex(pid, arguments)
    if name in _FIRST_ARGUMENT or name in _EPOLL:
        return Wait(name, numbers=(arguments[0],))
    if name in ("poll", "ppoll"):
        return Wait(name, numbers=_polled(pid, arguments[0], arguments[1]))
    if name in ("select", "pselect6"):
        return Wait(name, numbers=_selected(pid, arguments[0], arguments[1]))
    return Wait(name)


def _of_futex(pid: int, arguments: list[int]) -> Wait:
    address, operation, value = arguments[:3]
    command = operation & 0x7F & ~_FUTEX_FLAGS
    mutex = (command == _FUTEX_WAIT and value & 0xFFFFFFFF == _LOCKED_WITH_WAITERS) or command in (
        _FUTEX_LOCK_PI,
        _FUTEX_LOCK_PI2,
    )
    return Wait("futex", lock=address, mutex=mutex, owner=_owner(pid, address) if mutex else 0)


def _owner(pid: int, address: int) -> int:
    """The thread that holds a glibc mutex: `int lock; unsigned count; int owner` (sysdeps/nptl/bits/struct_mutex.h)."""
    data = _memory(pid, address + 8, 4)
    owner = int.from_bytes(data, "little") if len(data) == 4 else 0
    return owner if owner and os.path.exists(f"/proc/{pid}/task/{owner}") else 0


def _polled(pid: int, address: int, count: int) -> tuple[int, ...]:
    if not 0 < count <= _MOST_POLLED:
        return ()
    data = _memory(pid, address, 8 * count)
    return tuple(number for number, _, _ in struct.iter_unpack("=ihh", data[: len(data) // 8 * 8]))


def _selected(pid: int, highest: int, reading: int) -> tuple[int, ...]:
    """The descriptors that select() waits to read from: a set of bits."""
    if not reading or not 0 < highest <= _FD_SETSIZE:
        return ()
    bits = int.from_bytes(_memory(pid, reading, _FD_SETSIZE // 8), "little")
    return tuple(number for number in range(highest) if bits >> number & 1)


def _memory(pid: int, address: int, size: int) -> bytes:
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(memory, size, address)
        finally:
            os.close(memory)
    except (OSError, OverflowError):
        return b""
