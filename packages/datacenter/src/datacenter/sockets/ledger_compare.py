"""Holds a ledger against /proc: of this process or another one. Deciding is pure; the reading is at the end.

Numbers alone prove nothing, for a closed number is given out again at once: so what the link in /proc/PID/fd points to
must fit the kind that the ledger recorded, and for a socket be the same inode.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datacenter.errors import NoLedgerError, NoSuchProcessError, NotPermittedError
from leakline.recorder import Entry, Table, TableFormatError, read_table

SUFFIX = ".ledger"
SETTLED_TRIES = 50

_LINKS = {
    "eventfd": "anon_inode:[eventfd]",
    "epoll": "anon_inode:[eventpoll]",
    "pipe": "pipe:[",
    "inotify": "anon_inode:inotify",
    "timerfd": "anon_inode:[timerfd]",
    "signalfd": "anon_inode:[signalfd]",
    "memfd": "/memfd:",
    "pty": "/dev/pt",
    "file": "/",
    "directory": "/",
}
_SOCKETS = frozenset({"tcp", "udp", "unix", "netlink", "socket"})


def fits(entry: Entry, target: str) -> bool:
    """Whether `target`, the link of a descriptor, is what the ledger recorded under that number."""
    if entry.kind in _SOCKETS:
        return target == f"socket:[{entry.inode}]" if entry.inode else target.startswith("socket:[")
    if entry.kind == "pidfd":  # a name of its own since Linux 6.9
        return target.startswith(("anon_inode:[pidfd]", "pidfd:["))
    return target.startswith(_LINKS.get(entry.kind, ""))


@dataclass(frozen=True)
class Comparison:
    """A ledger beside /proc at one moment.

    `owned`: entries whose descriptor is there. `missing`: entries without a descriptor. `mismatched`: entries whose
    number is somebody else's, with what it is now. `unowned`: descriptors (number, link) with no entry.
    `settled`: nothing was opened or closed meanwhile, so a difference is a fact and not a race.
    """

    owned: tuple[Entry, ...]
    missing: tuple[Entry, ...]
    mismatched: tuple[tuple[Entry, str], ...]
    unowned: tuple[tuple[int, str], ...]
    settled: bool
    exact: bool
    reason: str = ""

    def unexplained(self, baseline: Mapping[int, str]) -> tuple[str, ...]:
        """What is wrong, in words: () if every descriptor is in the ledger or was in `baseline`, and the reverse."""
        found = [
            f"{number} ({target}) is open and in no ledger"
            for number, target in self.unowned
            if baseline.get(number) != target
        ]
        found += [f"{_name(entry)} is in the ledger and not open" for entry in self.missing]
        found += [f"{_name(entry)} is in the ledger, but is {target} now" for entry, target in self.mismatched]
        return tuple(found)


def _name(entry: Entry) -> str:
    return f"{entry.number} ({entry.kind} of {entry.owner or 'unknown owner'})"


def compare(
    entries: list[Entry] | tuple[Entry, ...], links: Mapping[int, str], *, settled: bool, exact: bool, reason: str = ""
) -> Comparison:
    """Decides which descriptors and entries belong together. Pure."""
    known = {entry.number for entry in entries}
    here = [(entry, links.get(entry.number)) for entry in entries]
    return Comparison(
        owned=tuple(entry for entry, target in here if target is not None and fits(entry, target)),
        missing=tuple(entry for entry, target in here if target is None),
        mismatched=tuple((entry, target) for entry, target in here if target is not None and not fits(entry, target)),
        unowned=tuple((number, target) for number, target in sorted(links.items()) if number not in known),
        settled=settled,
        exact=exact,
        reason=reason,
    )


# --- reading


def links_of(pid: int) -> dict[int, str]:
    """What each descriptor of a process points to. Raises OSError when the process is gone or may not be looked at."""
    directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = {}
        for name in os.listdir(directory):
            if pid == os.getpid() and int(name) == directory:
                continue
            with suppress(FileNotFoundError):  # closed since it was listed
                found[int(name)] = os.readlink(name, dir_fd=directory)
        return found
    finally:
        os.close(directory)


def ledger_path(pid: int) -> Path | None:
    """The ledger that a process has mapped, as seen from here (in a container too). None if it has none.

    The process's own mapping is asked, not the usual directories: they depend on its environment, not on ours.
    """
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if path.endswith(SUFFIX):
                return Path(f"/proc/{pid}/root/{path}")
    return None


def read_ledger(pid: int) -> Table:
    """The ledger of another process. Costs that process nothing.

    Raises NoSuchProcessError, NotPermittedError, and NoLedgerError when it is no datacenter process.
    """
    try:
        path = ledger_path(pid)
        table = read_table(path) if path else None
    except (ProcessLookupError, FileNotFoundError):
        table = None
    except TableFormatError as error:
        raise NoLedgerError(f"The ledger of process {pid} cannot be read: {error.message}.", error.hint) from error
    except PermissionError as error:
        raise _not_permitted(pid) from error
    if not Path(f"/proc/{pid}").exists():
        raise no_such_process(pid)
    if table is None or not table.written_by(pid):
        raise NoLedgerError(
            f"Process {pid} keeps no ledger: it is not a datacenter process, or has no client, service or broker open.",
            f"To look at any process, type `leakline ls {pid}`.",
        )
    return table


def compare_with_proc(pid: int) -> Comparison:
    """The ledger of process `pid` beside its /proc. Errors as read_ledger.

    If the process is so busy that no quiet moment comes within 50 tries, `settled` is False.
    """
    for _ in range(SETTLED_TRIES):
        before = read_ledger(pid)
        try:
            links = links_of(pid)
        except PermissionError as error:
            raise _not_permitted(pid) from error
        except OSError as error:
            raise no_such_process(pid) from error
        after = read_ledger(pid)
        settled = before.settled and after.settled and before.changes == after.changes
        if settled:
            break
    return compare(after.entries, links, settled=settled, exact=after.complete, reason=after.incomplete_because)


def no_such_process(pid: int) -> NoSuchProcessError:
    """The error for a pid that nothing has."""
    return NoSuchProcessError(f"There is no process {pid}.", "To list datacenter's processes, type `datacenter ls`.")


def _not_permitted(pid: int) -> NotPermittedError:
    return NotPermittedError(
        f"Process {pid} belongs to another user, who alone (and root) may look at its descriptors.",
        f"Type `sudo datacenter fds {pid}`.",
    )
