"""What the kernel says about a process: descriptors, socket tables, threads, limits. It only reads, and signals nobody.

Every function takes a pid, holds nothing between calls, and may be called from any thread. With `started` (see there)
it refuses another process that was given the same number meanwhile. It raises a LeaklineError:
NoSuchProcessError, NotPermittedError, ZombieError or KernelThreadError.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from leakline.facts import Limits, Thread
from leakline.proc.closely import look_closely
from leakline.proc.descriptors import signalled
from leakline.proc.find import find
from leakline.proc.kinds import KindCounter
from leakline.proc.process import LastingProcess, Process, read_stat
from leakline.proc.snapshot import kinds, snapshot
from leakline.proc.stacks import python_stacks
from leakline.proc.threads import find_threads, read_threads

__all__ = [
    "KindCounter",
    "LastingProcess",
    "command",
    "count",
    "find",
    "kinds",
    "limits",
    "look_closely",
    "python_stacks",
    "signalled",
    "snapshot",
    "started",
    "threads",
    "threads_named",
]


def count(pid: int, started: int | None = None) -> int:
    """Number of open descriptors: a microsecond since Linux 6.2, a directory listing before."""
    return Process(pid, started).count()


def threads(pid: int, tids: Collection[int] | None = None) -> tuple[Thread, ...]:
    """All threads, or these, with state, wait channel (None where the kernel does not tell) and voluntary context
    switches.
    """
    return read_threads(Process(pid), tids=tids)


def threads_named(pid: int, wanted: Callable[[str], bool]) -> list[int]:
    """The tids of the threads whose names are wanted."""
    return find_threads(Process(pid), wanted)


def limits(pid: int) -> Limits:
    """RLIMIT_NOFILE of the process, soft and hard."""
    return Process(pid).limits()


def started(pid: int) -> int:
    """Start time in clock ticks since boot: pid and start time together name one process for ever."""
    return read_stat(pid).started


def command(pid: int) -> str:
    """The command line; the short name in brackets if it has none."""
    return Process(pid).command()
