"""Parents, children and siblings of a process that hold some of its descriptors: what a fork has left behind.

A fork copies descriptors under their numbers, so the relative is asked for the same numbers: a few microseconds each,
instead of reading all that every relative holds. That two links are the same open file, and not two of the same thing,
is asked of the kernel (kcmp), which needs the right to trace both; sockets and pipes also have an inode of their own.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable

import msgspec

from leakline.errors import LeaklineError
from leakline.facts import Closely, Descriptor, Relative, Snapshot, Thread
from leakline.proc.process import Process, Stat, read_stat
from leakline.proc.threads import read_threads

MOST_RELATIVES = 64
MOST_NUMBERS = 512  # of this process, asked of each relative: evenly over all of them
CPU_S = 0.15  # for all of it
_STDIO = 2  # a child has these from its parent on purpose
_KCMP = {"x86_64": 312, "aarch64": 272}.get(os.uname().machine)
_KCMP_FILE = 0
_ACCEPTING = ("accept", "accept4", "poll", "ppoll", "select", "pselect6")
_MOST_EPOLLS = 64


def read_relatives(process: Process, seen: Snapshot) -> Closely:
    """Who of its relatives holds what of the descriptors in `seen`; numbers 0 to 2 are left out."""
    until = time.thread_time() + CPU_S
    numbered = _spread([each for each in seen.descriptors if each.number > _STDIO])
    listeners = [each.number for each in seen.descriptors if each.socket is not None and each.socket.role == "listener"]
    found, incomplete = [], []
    relatives = _relatives(process)
    for pid, stat, relation in relatives[:MOST_RELATIVES]:
        if time.thread_time() > until:
            break
        relative = _look(process, pid, stat, relation, numbered, frozenset(listeners))
        if relative is None:
            incomplete.append(pid)
        elif relative.shared:
            found.append(relative)
    left = len(relatives) - MOST_RELATIVES
    told = [f"what {len(incomplete)} relatives hold: permission denied"] if incomplete else []
    if left > 0:
        told.append(f"{left} more relatives")
    waits = _waits_on(process.pid, seen.threads, _epolls(seen.descriptors), frozenset(listeners)) if found else None
    return Closely(relatives=tuple(found), waits_on=waits, incomplete=tuple(told))


def _spread(descriptors: list[Descriptor]) -> list[Descriptor]:
    step = max(1, -(-len(descriptors) // MOST_NUMBERS))
    return descriptors[::step]


def _relatives(process: Process) -> list[tuple[int, Stat, str]]:
    """Living parent, children and siblings. A process whose parent ended is a child of init, and has no siblings."""
    mine = read_stat(process.pid)
    found: list[tuple[int, Stat, str]] = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (process.pid, os.getpid()):
            continue
        try:
            stat = read_stat(int(name))
        except LeaklineError:
            continue
        if stat.ended or stat.kernel_thread:
            continue
        if int(name) == mine.parent and mine.parent > 1:
            found.append((int(name), stat, "parent"))
        elif stat.parent == process.pid:
            found.append((int(name), stat, "child"))
        elif stat.parent == mine.parent and mine.parent > 1:
            found.append((int(name), stat, "sibling"))
    return sorted(found, key=lambda each: ("child", "parent", "sibling").index(each[2]))


def _look(
    process: Process, pid: int, stat: Stat, relation: str, mine: list[Descriptor], listeners: frozenset[int]
) -> Relative | None:
    """What one relative shares; None if it may not be read."""
    try:
        directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return None if isinstance(error, PermissionError) else _ended(pid, stat, relation)
    try:
        shared, confirmed = _shared(process.pid, pid, mine, directory)
    finally:
        os.close(directory)
    waits = None
    if listeners.intersection(shared):
        waits = _waits_of(pid, listeners.intersection(shared))
    return msgspec.structs.replace(
        _ended(pid, stat, relation),
        command=_command(pid) or stat.name,
        same_program=_program(pid) == _program(process.pid),
        shared=tuple(shared),
        confirmed=confirmed,
        waits_on=waits,
    )


def _ended(pid: int, stat: Stat, relation: str) -> Relative:
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - stat.started / os.sysconf("SC_CLK_TCK")
    assert relation in ("parent", "child", "sibling")
    return Relative(pid, stat.name, relation, round(age, 1), True, (), False)  # type: ignore[arg-type]


def _shared(mine: int, other: int, descriptors: list[Descriptor], directory: int) -> tuple[list[int], bool]:
    shared, confirmed = [], True
    for each in descriptors:
        try:
            if os.readlink(str(each.number), dir_fd=directory) != each.target:
                continue
        except OSError:
            continue
        same = _same_file(mine, other, each.number)
        if same is False or (same is None and each.inode is None):
            continue  # two of one kind, or nobody can tell
        confirmed = confirmed and same is True
        shared.append(each.number)
    return shared, confirmed and bool(shared)


def _same_file(one: int, other: int, number: int) -> bool | None:
    """Whether a number means the same open file in both; None if the kernel does not tell this user."""
    if _KCMP is None:
        return None
    answer = _libc().syscall(_KCMP, one, other, _KCMP_FILE, number, number)
    return None if answer < 0 else answer == 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _waits_of(pid: int, listeners: frozenset[int]) -> tuple[int, ...] | None:
    try:
        process = Process(pid)
        names = os.listdir(f"/proc/{pid}/fd")
        epolls = [
            int(name)
            for name in names[: 16 * _MOST_EPOLLS]
            if os.readlink(f"/proc/{pid}/fd/{name}").endswith("[eventpoll]")
        ]
        return _waits_on(pid, read_threads(process, closely=True), epolls, listeners)
    except (OSError, LeaklineError):
        return None


def _epolls(descriptors: Iterable[Descriptor]) -> list[int]:
    return [each.number for each in descriptors if each.kind == "epoll"]


def _waits_on(
    pid: int, threads: tuple[Thread, ...], epolls: list[int], listeners: frozenset[int]
) -> tuple[int, ...] | None:
    """Which listeners are in its epolls, or waited for by a thread; None if one may wait unseen."""
    waited: set[int] = set()
    for thread in threads:
        unseen = thread.state == "S" if thread.wait is None else thread.wait.call == "io_uring_enter"
        if unseen:
            return None
        if thread.wait is not None and thread.wait.call in _ACCEPTING:
            waited.update(thread.wait.numbers)
    for epoll in epolls[:_MOST_EPOLLS]:
        try:
            with open(f"/proc/{pid}/fdinfo/{epoll}", "rb") as file:
                waited.update(int(line.split()[1]) for line in file if line.startswith(b"tfd:"))
        except OSError:
            return None
    return tuple(sorted(listeners & waited))


def _command(pid: int) -> str:
    try:
        return Process(pid).command()
    except LeaklineError:
        return ""


def _program(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""
