"""What the target of a link in /proc/PID/fd alone tells of a descriptor. Pure; the pytest plugin imports it alone."""

from __future__ import annotations

# What stands in `anon_inode:[…]` (inotify's has no brackets), where the field has another name for it.
_ANONYMOUS = {"eventpoll": "epoll", "perf_event": "perf-event", "seccomp notify": "seccomp-notify"}


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
