"""The descriptors of a process: number, what the link in /proc/PID/fd points to, and which kind of thing that is."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
from typing import NamedTuple

from leakline.proc.process import Process

_KINDS = {"mptcp": "tcp", "udplite": "udp", "unix-stream": "unix", "unix-dgram": "unix", "unix-seqpacket": "unix"}
_PROTOCOL_NAME = b"system.sockprotoname"  # extended attribute of every socket: the name of its struct proto
_PROTOCOLS = {
    "UNIX-STREAM": "unix-stream",
    "UNIX": "unix-dgram",  # also of SOCK_SEQPACKET; the socket tables tell the two apart
    "UDP-Lite": "udplite",
    "UDPLITEv6": "udplite",
    "AF_VSOCK": "vsock",
}


class Links(NamedTuple):
    """Numbers and targets of all descriptors, in step, lowest number first. `denied` targets are "": not readable."""

    numbers: list[int]
    targets: list[str]
    denied: int


def read_links(process: Process) -> Links:
    """Read all links in /proc/PID/fd; descriptors that are closed between listing and reading are left out."""
    with process.reading():
        directory = os.open(f"{process.path}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with process.reading():
            names = os.listdir(directory)  # the kernel lists them in ascending order
        if process.pid == os.getpid() and str(directory) in names:
            names.remove(str(directory))
        links: list[bytes] = []
        gone: list[int] = []  # positions
        denied = 0
        # The loop runs inside extend(), which keeps what it had when a link fails; then it goes on behind that link.
        rest = map(functools.partial(os.readlink, dir_fd=directory), "\0".join(names).encode().split(b"\0"))
        while len(links) < len(names):
            try:
                links.extend(rest)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM):
                    denied += 1
                else:
                    gone.append(len(links))
                links.append(b"")
    finally:
        os.close(directory)
    for position in reversed(gone):
        del names[position], links[position]
    # Decoded at once, as that is many times as fast. A name may hold any byte but NUL, UTF-8 or not.
    targets = b"\0".join(links).decode(errors="backslashreplace").split("\0") if links else []
    return Links(list(map(int, names)), targets, denied)


def kind_of_path(process: Process, number: int) -> str:
    """The kind of a descriptor whose target is a path, by asking the thing itself."""
    try:
        mode = os.stat(f"{process.path}/fd/{number}").st_mode
    except OSError:
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISFIFO(mode):
        return "pipe"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "device"
    return "file"


def protocol_of(process: Process, number: int) -> str | None:
    """Protocol of a socket, in any network namespace, also if no table lists it; None if it may not be read."""
    try:
        return _protocol_name(os.getxattr(f"{process.path}/fd/{number}", _PROTOCOL_NAME))
    except OSError:
        return None


def protocols_of(process: Process, numbers: list[int]) -> list[str | None]:
    """`protocol_of` of many sockets, in step: a third quicker."""
    paths = f"{process.path}/fd/".encode()
    found: list[bytes] = []
    # As in read_links: the loop runs inside extend(), and goes on behind what could not be read.
    rest = map(os.getxattr, [b"%b%d" % (paths, number) for number in numbers], itertools.repeat(_PROTOCOL_NAME))
    while len(found) < len(numbers):
        try:
            found.extend(rest)
        except OSError:
            found.append(b"")
    names = {raw: _protocol_name(raw) if raw else None for raw in set(found)}
    return [names[raw] for raw in found]


@functools.cache
def _protocol_name(raw: bytes) -> str:
    name = raw.rstrip(b"\0").decode()
    return _PROTOCOLS.get(name) or name.removesuffix("v6").lower()


def kind_of_protocol(protocol: str | None) -> str:
    """The kind under which a socket of this protocol is counted."""
    return _KINDS.get(protocol, protocol) if protocol else "socket"


def read_flags(process: Process, numbers: list[int]) -> dict[int, int]:
    """Open flags of fdinfo by number, O_CLOEXEC included. Descriptors that are gone are left out."""
    found: dict[int, int] = {}
    with process.reading():
        directory = os.open(f"{process.path}/fdinfo", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in numbers:
            flags = _flags(str(number), directory)
            if flags is not None:
                found[number] = flags
    finally:
        os.close(directory)
    return found


def _flags(name: str, directory: int) -> int | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        _, _, rest = os.read(file, 256).partition(b"flags:")  # "pos:" and "flags:" are its first two lines
        return int(rest[: rest.index(b"\n")], 8) if rest else None
    except OSError:
        return None
    finally:
        os.close(file)


def signalled(pid: int, numbers: list[int]) -> set[int]:
    """Which of these eventfds have a count above 0: somebody was told something and has not looked yet."""
    found = set()
    for number in numbers:
        try:
            with open(f"/proc/{pid}/fdinfo/{number}", "rb") as file:
                _, _, count = file.read(512).partition(b"eventfd-count:")
        except OSError:
            continue
        if count and int(count.split()[0], 16) > 0:
            found.add(number)
    return found
