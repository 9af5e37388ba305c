"""Folders as another process sees them, which may sit in a container and be nobody's friend."""

from __future__ import annotations

import os


def open_folder(pid: int, path: str) -> int:
    """A descriptor of the folder that has this absolute path in the process. No link is followed on the way: it would
    lead through our files. Raises OSError. The caller closes it.
    """
    folder = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in path.strip("/").split("/"):
        try:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder
