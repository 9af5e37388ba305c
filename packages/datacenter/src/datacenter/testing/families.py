"""The processes of a prefork family, as /proc shows them: who is there, and what each holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Relative:
    """`name`: worker-1, watcher, fork-server, …: what `ps -o comm` shows."""

    name: str
    pid: int


def family_of(supervisor: int) -> list[Relative]:
    """The living children of a supervisor, in the order of their start (about: of their pids). [] when it is gone."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "stat").read_text()
        except OSError:  # gone meanwhile
            continue
        name, _, rest = text.partition("(")[2].rpartition(") ")
        state, parent = rest.split()[:2]
        if int(parent) == supervisor and state not in "ZX":
            found.append(Relative(name, int(folder.name)))
    return sorted(found, key=lambda relative: relative.pid)


def named(supervisor: int, name: str) -> int:
    """The pid of the only living child with this name; 0 if there is none, or are several."""
    found = [relative.pid for relative in family_of(supervisor) if relative.name == name]
    return found[0] if len(found) == 1 else 0


def sockets_of(pid: int) -> set[str]:
    """What the links of a process's sockets say: equal ones in two processes are one socket, shared."""
    folder = f"/proc/{pid}/fd"
    found = set()
    for number in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{number}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found
