"""What a module has done to the fork server while it was imported, and what a forked process must not share.

A connection made before the fork is shared by all workers: their requests and answers mix, and when the server ends
the connection it stays in CLOSE_WAIT for as long as one of them lives (docs/fork.md, incident M).
"""

from __future__ import annotations

import os
import stat

from datacenter.errors import NotServableError
from leakline import proc
from leakline.facts import Descriptor

#: What may be shared: a file is opened on purpose, by a logger or as data; a pipe or terminal is where output goes.
_SHARED = frozenset({"file", "directory", "device", "pipe", "fifo", "pty", "memfd"})


def strange_descriptors(allowed: set[int]) -> NotServableError | None:
    """What to tell the user if this process has anything that its children must not share; None if not."""
    snapshot = proc.snapshot(os.getpid(), threads=False, libraries=False)
    found = [
        descriptor
        for descriptor in snapshot.descriptors
        if descriptor.number > 2 and descriptor.number not in allowed and _must_not_be_shared(descriptor)
    ]
    if not found:
        return None
    listed = ", ".join(_said(descriptor) for descriptor in found[:3]) + (", …" if len(found) > 3 else "")
    return NotServableError(
        f"the service's module opened {len(found)} descriptors while it was imported that workers must not share: "
        f"{listed}",
        "All workers would share one connection. Open it in a function, at its first use (docs/prefork.md); "
        "`leakline run -- python -c 'import MODULE'` shows the line.",
    )


def strange_threads() -> tuple[str, ...]:
    """A warning if a thread runs: it would not exist in a worker, and a lock that it holds would stay locked there."""
    count = len(os.listdir("/proc/self/task"))
    if count == 1:
        return ()
    text = f"the service's module started {count - 1} thread(s) while it was imported; no worker has them"
    return (f"{text}, and a lock that one holds at the fork stays locked. Start them in a function, at first use.",)


def _must_not_be_shared(descriptor: Descriptor) -> bool:
    if descriptor.kind in _SHARED:
        return False
    try:
        mode = os.fstat(descriptor.number).st_mode
    except OSError:
        return False  # the snapshot's own
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode) or stat.S_ISFIFO(mode))


def _said(descriptor: Descriptor) -> str:
    socket = descriptor.socket
    if socket is None:
        return f"{descriptor.number} ({descriptor.kind})"
    known = (end for end in (socket.local, socket.remote) if end is not None and end.port)
    ends = " -> ".join(f"{end.host}:{end.port}" for end in known)
    return f"{descriptor.number} ({' '.join(part for part in (descriptor.kind, ends, socket.state or '') if part)})"
