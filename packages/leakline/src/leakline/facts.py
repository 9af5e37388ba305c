"""What leakline knows about a process: plain immutable data that `proc` reads, and that `growth`, `rules` and
`reports` take.

Nothing here does I/O. A field that could not be read is None (and `Snapshot.unreadable` says why): never a guess.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

Role = Literal["listener", "accepted", "outgoing", "never-bound", "bound", "connected", "pair", "unknown"]


# gc=False: a snapshot makes tens of thousands of these three; they hold no cycles, so a collection would find nothing.
class Address(msgspec.Struct, frozen=True, gc=False):
    """One end of a socket. `host` is a numeric IP address or a UNIX path (`@name` for an abstract one); `port` is 0
    for UNIX.
    """

    host: str
    port: int = 0


class Socket(msgspec.Struct, frozen=True, gc=False):
    """What the kernel's socket tables say of one socket. Queues are in bytes (for a TCP listener: in connections)."""

    protocol: str  # tcp, udp, unix-stream, unix-dgram, unix-seqpacket, netlink, raw, packet, …; "socket" if unknown
    role: Role
    state: str | None = None  # ESTABLISHED, LISTEN, CLOSE_WAIT, …
    local: Address | None = None
    remote: Address | None = None
    service: str | None = None  # name of the well-known port, from /etc/services
    receive_queue: int | None = None
    send_queue: int | None = None
    in_tables: bool = True  # False: the kernel's tables do not list it (never bound nor connected)
    unanswered: int = 0  # TCP: how often in a row data or a probe was sent and nothing came back


class Descriptor(msgspec.Struct, frozen=True, gc=False):
    """One open descriptor of a process."""

    number: int
    kind: str  # tcp, udp, unix, socket, eventfd, epoll, pipe, file, directory, inotify, timerfd, pidfd, memfd, pty, …
    target: str  # what /proc/PID/fd/N links to
    inode: int | None = None
    flags: int | None = None  # open flags of fdinfo, when asked for
    close_on_exec: bool | None = None
    socket: Socket | None = None

    @property
    def deleted(self) -> bool:
        """Whether it is a regular file without a name. Shared memory is made that way, and is none of these."""
        unnamed = self.kind == "file" and self.target.endswith(" (deleted)")
        return unnamed and not self.target.startswith(("/dev/", "/SYSV", "/anon"))


class Wait(msgspec.Struct, frozen=True):
    """The system call that a thread sleeps in. `lock`: the address of the futex; `mutex`: it is a lock for certain,
    which somebody holds (a condition variable and a semaphore look alike): thread `owner`, if that is not 0.
    `numbers`: descriptors it waits for.
    """

    call: str  # futex, poll, recvfrom, accept4, …; "other"
    lock: int = 0
    mutex: bool = False
    owner: int = 0
    numbers: tuple[int, ...] = ()


class Thread(msgspec.Struct, frozen=True):
    """One thread at one moment. `wait_channel` is None when the kernel does not expose it; `context_switches` are
    voluntary ones. `deaf`: it blocks every signal, as libzmq's own threads do. `cpu_seconds` (on a CPU),
    `ready_seconds` (in the queue for one) and `wait` are read with a snapshot only; None where they may not be read.
    """

    tid: int
    name: str
    state: str  # R, S, D, T, Z, …
    wait_channel: str | None
    context_switches: int | None
    cpu_seconds: float | None = None
    ready_seconds: float | None = None
    wait: Wait | None = None
    deaf: bool = False


class Limits(msgspec.Struct, frozen=True):
    """RLIMIT_NOFILE of the process; `ceiling` is an application's own (`--limit`), if any."""

    soft: int
    hard: int
    ceiling: int | None = None

    @property
    def effective(self) -> int:
        """The limit that is hit first."""
        return self.soft if self.ceiling is None else min(self.soft, self.ceiling)


class Snapshot(msgspec.Struct, frozen=True):
    """All descriptors of a process at one moment (`at`: seconds of the monotonic clock)."""

    pid: int
    command: str
    at: float
    descriptors: tuple[Descriptor, ...]
    limits: Limits | None
    threads: tuple[Thread, ...] = ()
    libraries: tuple[str, ...] = ()  # file names of mapped shared objects (libzmq.so.5, libpython3.11.so.1.0, …)
    unreadable: tuple[str, ...] = ()  # what could not be read, and why, in words

    @property
    def total(self) -> int:
        return len(self.descriptors)

    @property
    def highest(self) -> int:
        """Highest descriptor number in use; -1 if there is none."""
        return max((descriptor.number for descriptor in self.descriptors), default=-1)

    def counts(self) -> dict[str, int]:
        """Descriptors per kind, most first."""
        return dict(Counter(descriptor.kind for descriptor in self.descriptors).most_common())


class Relative(msgspec.Struct, frozen=True):
    """A parent, child or sibling that holds some of the same descriptors, under the same numbers.

    `shared`: those numbers; `confirmed`: the kernel says (kcmp) that they are the same open file. `age_s`: since it was
    started. `waits_on`: numbers of shared listeners that it takes connections from; None: not known.
    """

    pid: int
    command: str
    relation: Literal["parent", "child", "sibling"]
    age_s: float
    same_program: bool
    shared: tuple[int, ...]
    confirmed: bool
    waits_on: tuple[int, ...] | None = None


class TimeWait(msgspec.Struct, frozen=True):
    """Connections in TIME_WAIT, which hold no descriptor and belong to no process: `total` of the network namespace,
    and those of this process's listeners and remotes, by address. `ports`: how many the kernel gives to clients.
    `come_and_go`: TCP sockets of the process itself were seen to be opened and closed.
    """

    total: int
    listeners: dict[str, int] = {}
    remotes: dict[str, int] = {}
    ports: int = 0
    come_and_go: bool = False


ASKED_CLOSELY = 4096  # descriptors of one kind: those with the highest numbers, mostly the youngest


class Closely(msgspec.Struct, frozen=True):
    """What is read of a process once, at the end of an observation: what lies behind some of its descriptors.

    `dead_pipes`: numbers of pipes whose other end nobody holds; `dead_pidfds`: numbers of those whose process ended;
    `deleted_bytes`: disk space of deleted files. `relatives` is None where they were not looked at. `incomplete`: in
    words, what was not looked at.
    """

    relatives: tuple[Relative, ...] | None = None
    waits_on: tuple[int, ...] | None = None  # numbers of own listeners that this process takes connections from
    dead_pipes: frozenset[int] = frozenset()
    every_pipe_searched: bool = True  # else one that may not be read, or holds very many, may have an end
    dead_pidfds: frozenset[int] = frozenset()
    deleted_bytes: int = 0
    time_wait: TimeWait | None = None
    incomplete: tuple[str, ...] = ()


class Sample(msgspec.Struct, frozen=True):
    """The count at one moment; `kinds` is given when the count moved since the last sample that had them."""

    at: float  # seconds, monotonic
    total: int
    kinds: dict[str, int] | None = None


class Frame(msgspec.Struct, frozen=True):
    """One frame of an origin. `line` is 0 where it is not known; then `file` is the library or program itself.

    `module`: the library or program that a native frame's code is in.
    """

    function: str
    file: str
    line: int
    language: Literal["python", "native"]
    module: str = ""


def told(frame: Frame) -> str:
    """`function (file.py:12)`, with the last part of the path only."""
    place = f"{frame.file.rpartition('/')[2]}:{frame.line}" if frame.line else frame.file.rpartition("/")[2]
    return f"{frame.function} ({place})" if place else frame.function


class Origin(msgspec.Struct, frozen=True):
    """A call stack that opened `count` descriptors which are still alive; the innermost frame comes first.

    `frames[headline]` is the innermost of the user's own code. `opened` and `closed` count all descriptors of the
    stack since the recording began, also those that `count` is not about; None: not recorded. Ages are of its first
    and last open. `stacks`: how many stacks with this headline are counted, of which `frames` is the most common.
    """

    count: int
    frames: tuple[Frame, ...]
    headline: int = 0
    stacks: int = 1
    opened: int | None = None
    closed: int | None = None
    oldest_s: float | None = None
    newest_s: float | None = None
    per_second: float | None = None  # how many more are open, since the recording began


Confidence = Literal["certain", "likely", "possible"]


class Finding(msgspec.Struct, frozen=True):
    """One diagnosed fact, under a stable id. Formats (terminal, JSON, …) are views of it.

    `threshold`: in words, from which figure on it is told. `harmless`: when it is none; `next`: the command to type;
    both "" where there is none. `confidence` is about the cause, not about what was measured. `ruled_out`: what else
    it could have been, with the figures that say that it is not.
    """

    id: str
    severity: Literal["leak", "warning", "note"]
    title: str
    count: int
    per_second: float
    evidence: dict[str, object]
    cause: str
    remedy: str
    origins: tuple[Origin, ...] = ()
    harmless: str = ""
    next: str = ""
    threshold: str = ""
    confidence: Confidence = "likely"
    ruled_out: dict[str, object] = {}


Verdict = Literal["leak", "steady", "near-limit", "unknown"]


class Alive(msgspec.Struct, frozen=True):
    """Descriptors of one kind that are open and that one line opened (all stacks with the same headline).

    `per_second`: how many more of them are open since the recording began, from the first one on; ages in seconds.
    `errors`: the errno names of sockets whose last bind or connect failed, with their counts. `recent`: how many of
    them were opened in the second half of the recording.
    """

    kind: str
    origin: Origin
    errors: dict[str, int] = {}
    recent: int = 0


class WrongClosed(msgspec.Struct, frozen=True):
    """A close of a number that was not open, or of somebody else's descriptor: this close, the one before, the open."""

    number: int
    kind: Literal["nothing-open", "other-owner", "library-owner"]
    count: int
    closed_by: tuple[Frame, ...]
    closed_before_by: tuple[Frame, ...] = ()
    opened_by: tuple[Frame, ...] = ()
    seconds_ago: float = 0.0


class Recorded(msgspec.Struct, frozen=True):
    """What the recorder knows of a process: which lines opened what is open now (`alive`, most first).

    `older`: open before the recording began, by kind. `inherited`: from the process that forked this one. `outside`:
    opened by something that does not go through the C library (io_uring, a static runtime), by kind.
    `come_and_go`: the stacks that opened most of what is closed again.
    `incomplete`: in words, what was not recorded.
    """

    path: str
    mode: Literal["launched", "attached"]
    seconds: float
    live: bool
    opened: int
    closed: int
    alive: tuple[Alive, ...] = ()
    older: dict[str, int] = {}
    inherited: dict[str, int] = {}
    outside: dict[str, int] = {}
    wrong_closes: tuple[WrongClosed, ...] = ()
    come_and_go: tuple[Origin, ...] = ()
    exhausted: int = 0  # how often the kernel said EMFILE or ENFILE
    exhausted_error: str = ""
    exhausted_at: tuple[Frame, ...] = ()
    incomplete: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Open descriptors by kind, most first."""
        counted = Counter(self.older) + Counter(self.inherited) + Counter(self.outside)
        for each in self.alive:
            counted[each.kind] += each.origin.count
        return dict(counted.most_common())


class PythonHolder(msgspec.Struct, frozen=True):
    """What keeps one descriptor open inside a Python process.

    `retained`: an object that the program can reach; `garbage`: only a cycle that waits for the garbage collector;
    `lost`: no object at all, a bare number that was forgotten. `type` is that object's ("socket.socket"), "" if lost.
    `chain`: who holds it, from the object outward, each in words ("item of a list of 40", "attribute idle of
    pool.Pool").
    `module`: the one whose global or class is the end of the chain.
    """

    number: int
    state: Literal["lost", "retained", "garbage"]
    type: str = ""
    chain: tuple[str, ...] = ()
    module: str = ""


class PythonHolders(msgspec.Struct, frozen=True):
    """What was seen inside a Python process at one moment (`at`: as in Snapshot); `incomplete`: what not, in words."""

    at: float
    holders: tuple[PythonHolder, ...]
    incomplete: tuple[str, ...] = ()
