"""Puts what the kernel says together: all descriptors of a process at one moment, each classified."""

from __future__ import annotations

import time
from collections import Counter

from leakline.facts import Descriptor, Snapshot
from leakline.proc.descriptors import kind_of, kind_of_path, protocol_of, read_links
from leakline.proc.process import Process
from leakline.proc.threads import read_threads


def snapshot(pid: int, *, threads: bool = True, flags: bool = False, libraries: bool = True) -> Snapshot:
    """All descriptors of a process, classified."""
    process = Process(pid)
    at = time.monotonic()
    links, _ = read_links(process)
    descriptors = tuple(Descriptor(n, _kind(process, n, t), t) for n, t in links)
    return Snapshot(
        pid,
        process.command(),
        at,
        descriptors,
        process.limits(),
        read_threads(process) if threads else (),
        process.libraries() if libraries else (),
    )


def kinds(pid: int) -> dict[str, int]:
    """Descriptors per kind, most first."""
    process = Process(pid)
    links, _ = read_links(process)
    return dict(Counter(_kind(process, n, t) for n, t in links).most_common())


def _kind(process: Process, number: int, target: str) -> str:
    kind = kind_of(target)
    if kind is None and target.startswith("socket:"):
        return (protocol_of(process, number) or "socket").partition("-")[0]
    return kind or kind_of_path(process, number)
