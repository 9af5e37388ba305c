"""What lies behind some descriptors of a process: read once, at the end of an observation, as each answer costs a look
at other processes or a file for each descriptor. Every part is bounded, and says what it left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec

from leakline.errors import LeaklineError
from leakline.facts import ASKED_CLOSELY, Closely, Descriptor, Snapshot
from leakline.proc.process import Process, read_stat
from leakline.proc.relatives import read_relatives
from leakline.proc.time_wait import read_time_wait

MIN_PIPES = 8  # with fewer of which one end only is held here, the others' ends are not searched for
MOST_HELD = 4096  # processes that hold more are not searched, but for relatives
MOST_SEARCHED = 60_000  # descriptors of other processes


def look_closely(pid: int, seen: Snapshot, started: int | None = None) -> Closely:
    """Relatives, pipes to nobody, pidfds of the dead, deleted files, TIME_WAIT. Raises what `Process` raises."""
    process = Process(pid, started)
    found = read_relatives(process, seen)
    dead, complete = _dead_pipes(process, [each for each in seen.descriptors if each.kind == "pipe"])
    return msgspec.structs.replace(
        found,
        dead_pipes=dead,
        every_pipe_searched=complete,
        dead_pidfds=frozenset(_dead_pidfds(process, seen.descriptors)),
        deleted_bytes=_deleted_bytes(process, seen.descriptors),
        time_wait=read_time_wait(process, seen),
    )


def _deleted_bytes(process: Process, descriptors: Iterable[Descriptor]) -> int:
    sizes: dict[tuple[int, int], int] = {}
    for each in _some(descriptors, lambda each: each.deleted):
        try:
            status = os.stat(f"{process.path}/fd/{each.number}")
        except OSError:
            continue
        sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def _dead_pidfds(process: Process, descriptors: Iterable[Descriptor]) -> Iterable[int]:
    for each in _some(descriptors, lambda each: each.kind == "pidfd"):
        pid = _pid_of(process, each.number)
        if pid is not None and (pid < 0 or _has_ended(pid)):
            yield each.number


def _pid_of(process: Process, number: int) -> int | None:
    """Pid that a pidfd is of: -1 when the process was waited for, None (or 0) when it is not to be seen from here."""
    try:
        with open(f"{process.path}/fdinfo/{number}", "rb") as file:
            for line in file:
                if line.startswith(b"Pid:"):
                    return int(line.split()[1]) or None
    except (OSError, ValueError, IndexError):
        return None
    return None


def _has_ended(pid: int) -> bool:
    try:
        return read_stat(pid).ended
    except LeaklineError:
        return True


def _dead_pipes(process: Process, pipes: list[Descriptor]) -> tuple[frozenset[int], bool]:
    """Numbers of pipes of which this process has one end and nobody has the other; and whether all were searched."""
    ends: dict[str, set[int]] = {}
    numbers: dict[str, list[int]] = {}
    for each in pipes:
        mode = _mode(process, each.number)
        if mode is not None and each.number > 2:
            ends.setdefault(each.target, set()).add(mode)
            numbers.setdefault(each.target, []).append(each.number)
    single = {target for target, modes in ends.items() if len(modes) == 1 and modes != {stat.S_IRUSR | stat.S_IWUSR}}
    if len(single) < MIN_PIPES:
        return frozenset(), True
    left, complete = _not_held_elsewhere(process.pid, single)
    return frozenset(number for target in left for number in numbers[target]), complete


def _mode(process: Process, number: int) -> int | None:
    """Whether a descriptor is open for reading, writing or both: the permissions of its link."""
    try:
        return os.lstat(f"{process.path}/fd/{number}").st_mode & (stat.S_IRUSR | stat.S_IWUSR)
    except OSError:
        return None


def _not_held_elsewhere(pid: int, pipes: set[str]) -> tuple[set[str], bool]:
    """Which of them no other process holds that could be searched; and whether every one could."""
    left, searched, complete = set(pipes), 0, True
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == pid:
            continue
        directory = f"/proc/{name}/fd"
        try:
            count = os.stat(directory).st_size  # 0 before Linux 6.2: then the listing is as long as it is
            if count > MOST_HELD or searched + count > MOST_SEARCHED:
                complete = False
                continue
            numbers = os.listdir(directory)
        except OSError as error:
            complete = complete and not isinstance(error, PermissionError)  # else it has ended
            continue
        searched += len(numbers)
        for number in numbers:
            with suppress(OSError):  # closed meanwhile
                left.discard(os.readlink(f"{directory}/{number}"))
        if not left:
            break
    return left, complete


def _some(descriptors: Iterable[Descriptor], wanted: Callable[[Descriptor], bool]) -> list[Descriptor]:
    return [each for each in descriptors if wanted(each)][-ASKED_CLOSELY:]
