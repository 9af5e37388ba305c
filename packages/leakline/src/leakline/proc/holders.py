"""Which processes hold a file, a folder, a file system, a UNIX socket or a port: one pass over all of /proc.

What a process holds besides descriptors counts too: its working directory, its root, its program, what it has mapped.
A thing is recognised by device and inode (a socket by its inode, which is unique in the whole system), so hard links,
other mount points of the same file, and processes in other network namespaces are found.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from leakline.errors import LeaklineError, NotPermittedError, UsageError
from leakline.facts import Socket
from leakline.holding import DELETED, Held, Hold, Holder, Unheld
from leakline.proc.asked import Asked, FileAsked, PortAsked, UnixAsked
from leakline.proc.descriptors import read_links
from leakline.proc.process import Process, read_stat, user_name
from leakline.proc.same_file import grouped_by_open_file
from leakline.proc.sockets_at import SocketsAt, sockets_at


def holders(asked: Asked) -> Held:
    """Who holds it. Raises LeaklineError if nothing can be read at all (no /proc)."""
    if isinstance(asked, FileAsked):
        search: _Search = _FileSearch(asked)
    else:
        search = _SocketSearch(asked)
    denied: dict[str, int] = {}
    for pid in _processes():
        try:
            search.look(Process(pid))
        except NotPermittedError:
            owner = _owner(pid)
            denied[owner] = denied.get(owner, 0) + 1
        except LeaklineError:  # it ended, or is a thread of the kernel
            continue
    holds = _with_open_files(search.holds)
    found = tuple(holder for pid in {hold.pid: None for hold in holds} if (holder := _holder(pid)) is not None)
    alive = {holder.pid for holder in found}
    return Held(
        target=asked.told,
        holders=found,
        holds=tuple(hold for hold in holds if hold.pid in alive),
        unheld=search.unheld(),
        denied=denied,
    )


class _Search:
    """What `holders` asks of each process."""

    holds: list[Hold]

    def look(self, process: Process) -> None:
        """Add what this process holds."""
        raise NotImplementedError

    def unheld(self) -> tuple[Unheld, ...]:
        """What nobody was found to hold."""
        return ()


class _SocketSearch(_Search):
    def __init__(self, asked: PortAsked | UnixAsked) -> None:
        self.holds = []
        self._at: SocketsAt = sockets_at(asked, _processes())
        self._wanted = {f"socket:[{inode}]": inode for inode in self._at.sockets}
        self._held: set[int] = set()

    def look(self, process: Process) -> None:
        links = read_links(process)
        if self._wanted.keys().isdisjoint(links.targets):
            if links.denied and links.denied == len(links.numbers):
                raise process.denied()
            return
        for number, target in zip(links.numbers, links.targets, strict=True):
            inode = self._wanted.get(target)
            if inode is None:
                continue
            self._held.add(inode)
            socket, namespace = self._at.sockets[inode]
            # Of a socket the inode is the open file.
            self.holds.append(Hold(process.pid, "descriptor", target, number, inode, socket, namespace=namespace))

    def unheld(self) -> tuple[Unheld, ...]:
        users: dict[str, list[str]] = {}
        for inode, (socket, _) in self._at.sockets.items():
            if inode not in self._held:
                users.setdefault(_state(socket), []).append(self._at.users.get(inode, ""))
        found = [Unheld(state, len(names), tuple(sorted(set(filter(None, names))))) for state, names in users.items()]
        return (*found, *(Unheld(state, count) for state, count in self._at.orphans.items()))


class _FileSearch(_Search):
    def __init__(self, asked: FileAsked) -> None:
        self.holds = []
        self._asked = asked
        self._below = None if asked.below is None else asked.below.rstrip("/") + "/"

    def look(self, process: Process) -> None:
        links = read_links(process)
        known: dict[str, Hold | None] = {}  # thousands of descriptors may have the same target
        for number, target in zip(links.numbers, links.targets, strict=True):
            if target[:1] != "/":
                continue
            if target not in known or target.endswith(DELETED):
                known[target] = self._hold(process, f"fd/{number}", target)
            hold = known[target]
            if hold is not None:
                self.holds.append(msgspec.structs.replace(hold, number=number))
        for name, how in (("cwd", "cwd"), ("root", "root"), ("exe", "program")):
            with suppress(OSError):
                hold = self._hold(process, name, os.readlink(f"{process.path}/{name}"))
                # Every process has a root: worth telling only of one that is not everybody's.
                if hold is not None and not (how == "root" and hold.path == "/"):
                    self.holds.append(msgspec.structs.replace(hold, how=how))
        if self._asked.may_be_mapped:
            self._look_at_maps(process)
        if links.denied and links.denied == len(links.numbers):
            raise process.denied()

    def _hold(self, process: Process, name: str, target: str) -> Hold | None:
        """None: it is something else."""
        asked, path = self._asked, target.removesuffix(DELETED)
        named = path == asked.path and path != target  # one of that name, deleted
        below = self._below is not None and path.startswith(self._below)
        if not (named or below or asked.identities):
            return None
        status = None
        with suppress(OSError):
            status = os.stat(f"{process.path}/{name}")
        is_it = named or (status is not None and _is(asked, status))
        below = not is_it and (below or (status is not None and status.st_dev == asked.device))
        if not is_it and not below:
            return None
        gone = path != target if status is None else not status.st_nlink
        kept = status.st_blocks * 512 if status is not None and gone and stat.S_ISREG(status.st_mode) else None
        return Hold(process.pid, "descriptor", target, below=below, deleted=gone, bytes_kept=kept)

    def _look_at_maps(self, process: Process) -> None:
        try:
            with open(f"{process.path}/maps", "rb") as file:
                text = file.read()
        except OSError:
            return
        inodes = [b" %d " % inode for _, inode in self._asked.identities]
        told = os.fsencode(self._asked.path)
        if told not in text and not any(inode in text for inode in inodes):
            return
        for path in {path for line in text.splitlines() if (path := self._mapped(line)) is not None}:
            if any(hold.pid == process.pid and hold.how == "program" and hold.path == path for hold in self.holds):
                continue
            gone = path.endswith(DELETED)
            self.holds.append(Hold(process.pid, "mapped", path, deleted=gone))

    def _mapped(self, line: bytes) -> str | None:
        """The path of a line of /proc/PID/maps, if it is the file that was asked for."""
        fields = line.split(None, 5)
        if len(fields) < 6:
            return None
        path = os.fsdecode(fields[5]).encode(errors="backslashreplace").decode()
        if path == self._asked.path + DELETED:
            return path
        # Some file systems (btrfs, overlay) show another device here than stat() does: then the path must be the same.
        major, minor = (int(part, 16) for part in fields[3].split(b":"))
        for device, inode in self._asked.identities:
            if int(fields[4]) == inode and (os.makedev(major, minor) == device or path == self._asked.path):
                return path
        return None


def _is(asked: FileAsked, status: os.stat_result) -> bool:
    """By inode; a device by its number, too, as it may have several names."""
    if (status.st_dev, status.st_ino) in asked.identities:
        return True
    return asked.node == (stat.S_IFMT(status.st_mode), status.st_rdev)


def _processes() -> Iterator[int]:
    """All but this one."""
    try:
        names = os.listdir("/proc")
    except OSError:
        names = []
    return (pid for pid in sorted(map(int, filter(str.isdigit, names))) if pid != os.getpid())


def _with_open_files(holds: list[Hold]) -> list[Hold]:
    """Those of files numbered by open file, as far as the kernel tells. Only within one path: thousands are fewer."""
    by_path: dict[str, list[Hold]] = {}
    for hold in holds:
        if hold.how == "descriptor" and hold.number is not None and hold.open_file is None:
            by_path.setdefault(hold.path, []).append(hold)
    numbers: dict[tuple[int, int], int] = {}
    for alike in by_path.values():
        held = [(hold.pid, hold.number) for hold in alike if hold.number is not None]
        for group in (grouped_by_open_file(held) or []) if len({pid for pid, _ in held}) > 1 else []:
            numbers.update(dict.fromkeys(group, len(numbers) + 1))
    return [
        msgspec.structs.replace(hold, open_file=numbers[hold.pid, hold.number])
        if hold.number is not None and (hold.pid, hold.number) in numbers
        else hold
        for hold in holds
    ]


def _holder(pid: int) -> Holder | None:
    try:
        found = read_stat(pid)
        command = Process(pid).command()
    except LeaklineError:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - found.started / os.sysconf("SC_CLK_TCK")
    return Holder(pid, command, found.started, max(0.0, round(age, 2)), tuple(_ancestors(found.parent)))


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        try:
            pid = read_stat(pid).parent
        except LeaklineError:
            return


def _state(socket: Socket) -> str:
    return socket.state or "UNCONNECTED"


def _owner(pid: int) -> str:
    try:
        return user_name(os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return "another user"


def check(asked: Asked, held: Held) -> None:
    """Raise LeaklineError where nothing was found and that is no answer: the path does not exist, or too much was
    hidden. (Whether there is a socket at all is in tables that everybody may read.)
    """
    if held.holds or not isinstance(asked, FileAsked):
        return
    hidden = sum(held.denied.values())
    if hidden:
        users = ", ".join(f"{count} of {user}" for user, count in sorted(held.denied.items()))
        count = f"{hidden} process{'' if hidden == 1 else 'es'}"
        raise LeaklineError(
            f"nobody who could be read holds {asked.told}; {count} could not be read ({users})",
            f"look as root: sudo leakline holders {asked.typed}" if os.geteuid() else "look outside of this container",
        )
    if not asked.identities:
        raise UsageError(f"there is no {asked.path}, and no process holds a deleted file of that name", asked.hint)


def hidden(held: Held) -> bool:
    """Whether there is a socket whose holder could not be read."""
    return any(unheld.users for unheld in held.unheld)
