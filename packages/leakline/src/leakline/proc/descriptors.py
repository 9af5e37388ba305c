"""The descriptors of a process: number, what the link in /proc/PID/fd points to, and which kind of thing that is."""

from __future__ import annotations

import errno
import os
import stat

from leakline.proc.process import Process

# What stands in `anon_inode:[…]` (inotify's has no brackets), where the field has another name for it.
_ANONYMOUS = {"eventpoll": "epoll", "perf_event": "perf-event", "seccomp notify": "seccomp-notify"}
_PROTOCOL_NAME = "system.sockprotoname"  # extended attribute of every socket: the name of its struct proto
_PROTOCOLS = {
    "UNIX-STREAM": "unix-stream",
    "UNIX": "unix-dgram",  # also of SOCK_SEQPACKET; the socket tables tell the two apart
    "UDP-Lite": "udplite",
    "UDPLITEv6": "udplite",
    "AF_VSOCK": "vsock",
}


def read_links(process: Process) -> tuple[list[tuple[int, str]], int]:
    """(number, target) of each descriptor, lowest first, and how many links this user may not read (target "").

    Descriptors that are closed between listing and reading are left out.
    """
    with process.reading():
        directory = os.open(f"{process.path}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with process.reading():
            numbers = sorted(map(int, os.listdir(directory)))
        if process.pid == os.getpid() and directory in numbers:
            numbers.remove(directory)
        return _read(directory, numbers)
    finally:
        os.close(directory)


def _read(directory: int, numbers: list[int]) -> tuple[list[tuple[int, str]], int]:
    links, denied, readlink = [], 0, os.readlink
    for number in numbers:
        try:
            links.append((number, readlink(str(number), dir_fd=directory)))
        except OSError as error:  # noqa: PERF203 – each link may be gone, or denied, on its own
            if error.errno in (errno.EACCES, errno.EPERM):
                denied += 1
                links.append((number, ""))
    return links, denied


def kind_of(target: str) -> str | None:
    """The kind that the target alone tells; None where the thing itself must be asked (sockets, paths)."""
    head, colon, tail = target.partition(":")
    if colon:
        if head == "socket":
            return None
        if head == "pipe":
            return "pipe"
        if head == "anon_inode":
            name = tail.strip("[]")
            return _ANONYMOUS.get(name, name)
        if head == "/memfd":
            return "memfd"
        if head == "pidfd":
            return "pidfd"
        if head.startswith("/dmabuf"):
            return "dmabuf"
        if tail.startswith("[") and "/" not in head:
            return "namespace"  # net:[…], mnt:[…], user:[…]
    if target.startswith(("/dev/pts/", "/dev/ptmx")):
        return "pty"
    return None if target else "unknown"


def kind_of_path(process: Process, number: int) -> str:
    """The kind of a descriptor whose target is a path."""
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
        name = os.getxattr(f"{process.path}/fd/{number}", _PROTOCOL_NAME).rstrip(b"\0").decode()
    except OSError:
        return None
    return _PROTOCOLS.get(name) or name.removesuffix("v6").lower()


def read_flags(process: Process, number: int) -> int | None:
    """Open flags of fdinfo (O_CLOEXEC included); None if the descriptor is gone or may not be read."""
    try:
        with open(f"{process.path}/fdinfo/{number}", "rb") as file:
            for line in file:
                if line.startswith(b"flags:"):
                    return int(line[6:], 8)
    except OSError:
        pass
    return None
