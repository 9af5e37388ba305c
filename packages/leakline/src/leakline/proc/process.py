"""One process as /proc shows it: who it is, whether it is still the same one, its command, limits, descriptor count.

`Process` also turns the errno values of /proc into errors that say what to do: ENOENT and ESRCH mean that the process
ended, EACCES and EPERM that this user may not look.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from leakline.errors import (
    KernelThreadError,
    LeaklineError,
    NoSuchProcessError,
    NotPermittedError,
    UnsupportedError,
    ZombieError,
)
from leakline.facts import Limits

_GONE = (errno.ENOENT, errno.ESRCH)
_DENIED = (errno.EACCES, errno.EPERM)
_PF_EXITING = (
    0x00000004  # include/linux/sched.h: set before the thread lets go of its descriptors, long before "zombie"
)
_PF_KTHREAD = 0x00200000  # include/linux/sched.h: "I am a kernel thread"
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h: PROC_PID_INIT_INO


class Process:
    """A process that existed when this was made. Holds no descriptor; safe in any thread and after a fork.

    `started`: that one must have been started then (see Stat): its number may have been given to another one.
    Raises NoSuchProcessError, ZombieError or KernelThreadError when there is nothing to look at.
    """

    __slots__ = ("path", "pid", "started")

    def __init__(self, pid: int, started: int | None = None) -> None:
        self.pid = pid
        stat = read_stat(pid)
        if started is not None and stat.started != started:
            raise NoSuchProcessError(f"process {pid} has ended, and its number was given to {stat.name}")
        self.started = stat.started
        if stat.kernel_thread:
            raise KernelThreadError(f"process {pid} ({stat.name}) is a thread of the kernel: it has no descriptors")
        # A main thread that called pthread_exit() shows as a zombie whose descriptor table looks empty,
        # while its siblings run on with the whole table: read through one of those.
        self.path = f"/proc/{pid}" if not stat.ended else self._living_thread(stat)

    def _living_thread(self, stat: Stat) -> str:
        with self.reading():
            for tid in os.listdir(f"/proc/{self.pid}/task"):
                path = f"/proc/{self.pid}/task/{tid}"
                with suppress(NoSuchProcessError):
                    if not read_stat(self.pid, path).ended:
                        return path
        raise ZombieError(
            f"process {self.pid} ({stat.name}) has ended: it is a zombie, or about to be one, and holds no descriptors",
            f"its parent, process {stat.parent}, has not collected its exit status; look at that one: "
            f"leakline {stat.parent}",
        )

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn the OSErrors of reading /proc/PID into typed errors."""
        try:
            yield
        except OSError as error:
            raise self.explained(error) from error

    def explained(self, error: OSError) -> LeaklineError:
        """The typed error behind an OSError met while reading this process."""
        if error.errno in _GONE:
            return NoSuchProcessError(f"process {self.pid} ended while it was being read")
        if error.errno in _DENIED:
            return self.denied()
        return LeaklineError(f"process {self.pid} could not be read: {error}")

    def denied(self) -> LeaklineError:
        """What to say when the kernel refuses: whose process it is, and what to type."""
        try:
            self.check_same()  # an ending process belongs to root for a moment, when its memory is gone already
        except NoSuchProcessError as ended:
            return ended
        try:
            owner = user_name(os.stat(f"/proc/{self.pid}").st_uid)
        except OSError:
            owner = "another user"
        me = user_name(os.geteuid())
        if os.geteuid() == 0:
            hint = "this root lacks CAP_SYS_PTRACE (a container?): run leakline on the host, or add that capability"
        elif owner == me:
            hint = f"the process made itself undumpable (prctl or set-user-id): type `sudo leakline {self.pid}`"
        else:
            hint = f"type `sudo leakline {self.pid}`, or run leakline as {owner}"
        return NotPermittedError(f"process {self.pid} belongs to {owner}; {me} may not read its descriptors", hint)

    def check_same(self) -> None:
        """Raise NoSuchProcessError if the process ended meanwhile, also if its number was given to another one."""
        try:
            # An ending process still has its number, but its descriptors are gone one by one or at once.
            same = read_stat(self.pid).started == self.started and not read_stat(self.pid, self.path).ended
        except NoSuchProcessError:
            same = False
        if not same:
            raise NoSuchProcessError(f"process {self.pid} ended while it was being read")

    def command(self) -> str:
        """The command line, arguments joined by blanks; the short name in brackets if it has none."""
        with self.reading(), open(f"{self.path}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
        line = " ".join(word.decode(errors="backslashreplace") for word in words).strip()
        return line or f"[{read_stat(self.pid).name}]"

    def limits(self) -> Limits:
        """RLIMIT_NOFILE."""
        with self.reading(), open(f"{self.path}/limits") as file:
            for line in file:
                if line.startswith("Max open files"):
                    soft, hard = line[len("Max open files") :].split()[:2]
                    return Limits(soft=_limit(soft), hard=_limit(hard))
        self.check_same()  # the limits of an ending process are an empty file
        raise LeaklineError(f"/proc/{self.pid}/limits names no limit of open files")

    def count(self) -> int:
        """Number of open descriptors. O(1) since Linux 6.2, whose fd directory has the count as its size."""
        with self.reading():
            directory = f"{self.path}/fd"
            # An empty table and a kernel before 6.2 look the same (0), and so does a directory that may not be read.
            number = os.stat(directory).st_size or len(os.listdir(directory))
        if not number:
            self.check_same()
        return number

    def libraries(self) -> tuple[str, ...]:
        """File names of the mapped shared objects, in order of their addresses."""
        found: dict[str, None] = {}
        with self.reading(), open(f"{self.path}/maps", errors="backslashreplace") as file:
            for line in file:
                if ".so" in line:
                    name = line.rstrip("\n").removesuffix(" (deleted)").rpartition("/")[2]
                    if name.endswith(".so") or ".so." in name:
                        found[name] = None
        return tuple(found)


class LastingProcess:
    """One process that is looked at again and again. Whether it is still the same one is told by the inode of its fd
    folder, which costs a third of reading its stat: /proc gives each process inodes of its own, and none of them again
    (fs/proc/base.c, `proc_pid_make_inode`). A new one for the same process, after memory was short, is looked into.

    Holds no descriptor; use it from one thread at a time. Raises what `Process` raises.
    """

    def __init__(self, pid: int, started: int) -> None:
        self._pid, self._started = pid, started
        self._inode = 0
        self._process: Process | None = None

    def process(self) -> Process:
        """The process, of which this was made."""
        if self._process is None or self._now() is None:
            self._ask()
        assert self._process is not None
        return self._process

    def count(self) -> int:
        """Number of open descriptors."""
        found = None if self._process is None else self._now()
        if found:
            return found
        return self._ask().count()  # none: before Linux 6.2, or it is about to end

    def _now(self) -> int | None:
        """The size of its fd folder; None if that may be another process's by now."""
        assert self._process is not None
        try:
            status = os.stat(f"{self._process.path}/fd")
        except OSError:
            return None
        return status.st_size if status.st_ino == self._inode else None

    def _ask(self) -> Process:
        self._process, process = None, Process(self._pid, self._started)
        with process.reading():
            self._inode = os.stat(f"{process.path}/fd").st_ino
        process.check_same()  # the inode is of the process that was asked for
        self._process = process
        return process


class Stat:
    """Fields of /proc/PID/stat. `started` is in clock ticks since boot; with the pid it names one process for ever.

    `ended`: its descriptors are gone, or about to go.
    """

    __slots__ = ("ended", "kernel_thread", "name", "parent", "started", "state")

    def __init__(self, text: bytes) -> None:
        # The name is in parentheses and may itself contain blanks and parentheses: the last ")" ends it.
        head, _, tail = text.rpartition(b")")
        fields = tail.split()
        self.name = head.partition(b"(")[2].decode(errors="backslashreplace")
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        flags = int(fields[6])
        self.kernel_thread = bool(flags & _PF_KTHREAD)
        self.ended = self.state in "ZX" or bool(flags & _PF_EXITING)
        self.started = int(fields[19])


def read_stat(pid: int, path: str | None = None) -> Stat:
    """Read /proc/PID/stat, which every user may read. Raises NoSuchProcessError."""
    try:
        with open(f"{path or f'/proc/{pid}'}/stat", "rb") as file:
            return Stat(file.read())
    except OSError as error:
        if not os.path.exists("/proc/self"):
            raise UnsupportedError("there is no /proc here", "leakline needs Linux with /proc mounted") from error
        if error.errno in _GONE:
            raise NoSuchProcessError(f"there is no process {pid}", _where_else()) from error
        raise LeaklineError(f"process {pid} could not be read: {error}") from error


def _where_else() -> str:
    hint = "list processes with `ps -e`"
    try:
        inside = os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE
    except OSError:
        inside = False
    if inside:
        hint += "; this is a container: processes outside of it are visible only from there"
    if os.geteuid() != 0 and not os.path.exists("/proc/1"):
        hint += "; /proc is mounted with hidepid and hides the processes of other users: look as root"
    return hint


def _limit(text: str) -> int:
    # The kernel clamps RLIMIT_NOFILE to fs.nr_open, so "unlimited" cannot occur today; 2**63-1 is an int if it does.
    return (1 << 63) - 1 if text == "unlimited" else int(text)


def user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
