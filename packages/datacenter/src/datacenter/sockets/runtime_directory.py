"""Where a process leaves what others read about it, one file a process: its ledger.

A shared directory (/tmp) invites tricks: somebody else may have made ours first, or put a link there. So it must be a
real directory, ours, and writable by nobody else; files in it are made anew (O_EXCL, O_NOFOLLOW), never opened.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from datacenter.sockets.ledger_compare import SUFFIX
from leakline.recorder import RecorderError, read_table, start_time_ticks

SWEPT_AT_MOST = 256  # files looked at in one sweep


def default() -> Path:
    """$DATACENTER_RUNTIME_DIR, else $XDG_RUNTIME_DIR/datacenter, else /tmp/datacenter-UID."""
    if own := os.environ.get("DATACENTER_RUNTIME_DIR"):
        return Path(own)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and Path(session).is_dir():
        return Path(session, "datacenter")
    return Path(f"/tmp/datacenter-{os.geteuid()}")


def prepare(directory: Path) -> None:
    """Makes the directory, mode 0700, or checks that it is safe. PermissionError says what is wrong with it."""
    with suppress(FileExistsError):
        os.makedirs(directory.parent, exist_ok=True)
        os.mkdir(directory, 0o700)
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(f"{directory} is not a directory (or is a link to one)")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to user {status.st_uid}")
    if status.st_mode & 0o022:
        raise PermissionError(f"{directory} can be written by other users")


def sweep(directory: Path) -> int:
    """Removes ledgers whose process is dead (by pid and start time). Returns how many. Looks at 256 files at most.

    Files from another pid namespace are left alone: whether their process lives cannot be seen from here.
    """
    namespace = os.stat("/proc/self/ns/pid").st_ino
    removed = 0
    with os.scandir(directory) as listing:
        names = [entry.name for entry, _ in zip(listing, range(SWEPT_AT_MOST), strict=False)]
    for name in names:
        pid = name.removesuffix(SUFFIX)
        if pid == name or not pid.isdecimal():
            continue
        with suppress(OSError, RecorderError):
            table = read_table(directory / name)
            if table.pid_namespace == namespace and start_time_ticks(table.pid) != table.start_time_ticks:
                (directory / name).unlink()
                removed += 1
    return removed
