"""Puts what the kernel says together: all descriptors of a process at one moment, each classified.

The order matters: first the links, then the socket tables, so that every socket that is listed had been opened before
the tables were read; one that is in no table then was closed meanwhile (its link has changed) or has no address.
"""

from __future__ import annotations

import os
import time
from collections import Counter

from leakline.errors import LeaklineError
from leakline.facts import Descriptor, Snapshot, Socket, Thread
from leakline.link_targets import kind_of
from leakline.proc.descriptors import (
    Links,
    kind_of_path,
    kind_of_protocol,
    protocol_of,
    protocols_of,
    read_flags,
    read_links,
)
from leakline.proc.process import Process
from leakline.proc.sockets import absent_socket, read_sockets
from leakline.proc.threads import read_threads


def snapshot(
    pid: int, *, threads: bool = True, flags: bool = False, libraries: bool = True, started: int | None = None
) -> Snapshot:
    """All descriptors of a process at one moment, classified; lowest number first.

    `flags` also reads fdinfo (open flags, close-on-exec), which about doubles the time. What could not be read is said
    in `unreadable`. Raises NoSuchProcessError, also if the process ends meanwhile, NotPermittedError, ZombieError,
    KernelThreadError.
    """
    process = Process(pid, started)
    at = time.monotonic()
    before = read_threads(process)
    unreadable: list[str] = []
    links = _links(process)
    if links.denied:
        unreadable.append(f"{links.denied} of {len(links.numbers)} descriptors: permission denied")
    descriptors = _classify(process, links)
    after = read_threads(process, closely=threads)
    if not _stood_still(before, after):
        descriptors = [descriptor for descriptor in descriptors if _still_true(process, descriptor)]
    strangers = sum(1 for each in descriptors if each.socket is not None and _is_stranger(each.socket))
    if strangers:
        unreadable.append(
            f"state and addresses of {strangers} sockets: they are in no table of the process's network namespace, "
            "so they belong to another one, or to a family whose table was not read"
        )
    if flags:
        known = read_flags(process, [descriptor.number for descriptor in descriptors])
        descriptors = [_with_flags(descriptor, known.get(descriptor.number)) for descriptor in descriptors]
    found = Snapshot(
        pid=pid,
        command=process.command(),
        at=at,
        descriptors=tuple(descriptors),
        limits=process.limits(),
        threads=after if threads else (),
        libraries=_libraries(process, unreadable) if libraries else (),
        unreadable=tuple(unreadable),
    )
    process.check_same()
    return found


def kinds(pid: int, started: int | None = None) -> dict[str, int]:
    """Descriptors per kind, most first. Asks each socket for its protocol instead of reading tables."""
    process = Process(pid, started)
    links = _links(process)
    counts: Counter[str] = Counter()
    for number, target in zip(links.numbers, links.targets, strict=True):
        kind = kind_of(target)
        if kind is None and target.startswith("socket:["):
            kind = kind_of_protocol(protocol_of(process, number))
        counts[kind or kind_of_path(process, number)] += 1
    process.check_same()
    return dict(counts.most_common())


def _links(process: Process) -> Links:
    links = read_links(process)
    if links.denied and links.denied == len(links.numbers):
        raise process.denied()
    return links


def _libraries(process: Process, unreadable: list[str]) -> tuple[str, ...]:
    try:
        return process.libraries()
    except LeaklineError as error:
        unreadable.append(f"mapped libraries: {error.message}")
        return ()


def _classify(process: Process, links: Links) -> list[Descriptor]:
    inodes = {
        number: int(target[8:-1])
        for number, target in zip(links.numbers, links.targets, strict=True)
        if target[:8] == "socket:["
    }
    sockets, bound = read_sockets(process, set(inodes.values()))
    absent = [number for number, inode in inodes.items() if inode not in sockets]
    protocols = dict(zip(absent, protocols_of(process, absent), strict=True))
    kinds: dict[str, str] = {}  # by target, as thousands of descriptors share a few ("anon_inode:[eventfd]")
    alike: dict[tuple[str | None, bool], Socket] = {}  # sockets without address and peer
    descriptors = []
    for number, target in zip(links.numbers, links.targets, strict=True):
        if number in inodes:
            inode = inodes[number]
            socket = sockets.get(inode)
            if socket is None:
                key = (protocols[number], inode in bound)
                socket = alike.get(key) or alike.setdefault(key, absent_socket(*key))
            descriptors.append(Descriptor(number, kind_of_protocol(socket.protocol), target, inode, None, None, socket))
        elif target[:6] == "pipe:[":
            descriptors.append(Descriptor(number, "pipe", target, int(target[6:-1])))
        elif target in kinds:
            descriptors.append(Descriptor(number, kinds[target], target))
        else:
            kind = kind_of(target) or kind_of_path(process, number)
            if not target.endswith(" (deleted)"):  # of deleted files, several may have had the same name
                kinds[target] = kind
            descriptors.append(Descriptor(number, kind, target))
    return descriptors


def _is_stranger(socket: Socket) -> bool:
    return socket.role == "unknown" and not socket.in_tables


def _stood_still(before: tuple[Thread, ...], after: tuple[Thread, ...]) -> bool:
    """Whether no thread ran between two looks: each time a thread goes to sleep is one voluntary switch more."""
    return [(thread.tid, thread.state, thread.context_switches) for thread in before] == [
        (thread.tid, thread.state, thread.context_switches) for thread in after
    ] and all(thread.state in "SDTt" and thread.context_switches is not None for thread in before)


def _still_true(process: Process, descriptor: Descriptor) -> bool:
    """Whether what was asked by number, after the links were read, was asked of the same thing."""
    if descriptor.socket is None or descriptor.socket.in_tables:
        return True
    try:
        return os.readlink(f"{process.path}/fd/{descriptor.number}") == descriptor.target  # of a socket: plain ASCII
    except OSError:
        return False


def _with_flags(descriptor: Descriptor, flags: int | None) -> Descriptor:
    if flags is None:
        return descriptor
    number, kind, target, inode = descriptor.number, descriptor.kind, descriptor.target, descriptor.inode
    return Descriptor(number, kind, target, inode, flags, bool(flags & os.O_CLOEXEC), descriptor.socket)
