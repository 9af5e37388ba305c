"""Which process a pid is: when it started, and the namespace that the number belongs to."""

from __future__ import annotations

import os
from pathlib import Path


def start_time_ticks(pid: int) -> int | None:
    """When a process started (field 22 of /proc/PID/stat), or None if there is none. With the pid: its identity."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def pid_namespace(pid: int | str) -> int | None:
    """The inode of a process's pid namespace."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None
