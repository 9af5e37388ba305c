"""Every kind of descriptor, as a real process holds it."""

from __future__ import annotations

import os
from typing import Any

from leakline import proc

EVERY_KIND = """
import ctypes, os, select, signal, socket, tempfile
keep = []
def fd(thing):
    keep.append(thing)
    return thing.fileno()
libc = ctypes.CDLL(None)
fds["tcp"] = fd(socket.socket())
fds["tcp6"] = fd(socket.socket(socket.AF_INET6))
fds["udp"] = fd(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
fds["unix"] = fd(socket.socket(socket.AF_UNIX))
fds["netlink"] = fd(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
fds["epoll"] = fd(select.epoll())
fds["pipe"] = os.pipe()[0]
fds["eventfd"] = libc.eventfd(0, 0)
fds["timerfd"] = libc.timerfd_create(1, 0)
fds["inotify"] = libc.inotify_init1(0)
fds["signalfd"] = libc.signalfd(-1, bytes(128), 0)
fds["pidfd"] = os.pidfd_open(os.getpid())
fds["memfd"] = os.memfd_create("a name: with [marks]")
fds["pty"], fds["pty-other-end"] = os.openpty()
fds["device"] = os.open("/dev/null", os.O_RDONLY)
fds["directory"] = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
fds["namespace"] = os.open("/proc/self/ns/mnt", os.O_RDONLY)
fds["file"], path = tempfile.mkstemp()
fds["deleted"] = os.open(path, os.O_RDONLY)
os.unlink(path)
fifo = path + ".fifo"
os.mkfifo(fifo)
fds["fifo"] = os.open(fifo, os.O_RDWR)
os.unlink(fifo)
"""
KINDS = {"tcp6": "tcp", "pty-other-end": "pty", "deleted": "file", "fifo": "pipe"}


def test_each_descriptor_has_its_kind(start: Any) -> None:
    target = start(EVERY_KIND)
    found = {descriptor.number: descriptor.kind for descriptor in proc.snapshot(target.pid).descriptors}
    assert {name: found[number] for name, number in target.fds.items()} == {
        name: KINDS.get(name, name) for name in target.fds
    }


def test_kinds_and_snapshot_agree(start: Any) -> None:
    target = start(EVERY_KIND)
    snapshot = proc.snapshot(target.pid)
    assert proc.kinds(target.pid) == snapshot.counts()
    assert proc.count(target.pid) == snapshot.total == len(os.listdir(f"/proc/{target.pid}/fd"))
    assert snapshot.highest == max(descriptor.number for descriptor in snapshot.descriptors)
    assert list(proc.kinds(target.pid).values()) == sorted(proc.kinds(target.pid).values(), reverse=True)


def test_targets_and_inodes_are_those_of_the_kernel(start: Any) -> None:
    target = start(EVERY_KIND)
    for descriptor in proc.snapshot(target.pid).descriptors:
        path = f"/proc/{target.pid}/fd/{descriptor.number}"
        assert descriptor.target == os.readlink(path)
        if descriptor.kind in ("tcp", "udp", "unix", "netlink") or descriptor.target.startswith("pipe:"):
            assert descriptor.inode == os.stat(path).st_ino


def test_flags_only_when_asked_for(start: Any) -> None:
    target = start(
        """
        import os
        fds["kept"] = os.open("/dev/null", os.O_WRONLY | os.O_APPEND)
        os.set_inheritable(fds["kept"], True)
        fds["closed at exec"] = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        """
    )
    plain = {d.number: d for d in proc.snapshot(target.pid).descriptors}
    assert {(d.flags, d.close_on_exec) for d in plain.values()} == {(None, None)}
    flagged = {d.number: d for d in proc.snapshot(target.pid, flags=True).descriptors}
    kept, closed = flagged[target.fds["kept"]], flagged[target.fds["closed at exec"]]
    assert (kept.close_on_exec, closed.close_on_exec) == (False, True)
    assert kept.flags is not None
    assert closed.flags is not None
    assert kept.flags & (os.O_ACCMODE | os.O_APPEND | os.O_CLOEXEC) == os.O_WRONLY | os.O_APPEND
    assert closed.flags & (os.O_ACCMODE | os.O_NONBLOCK) == os.O_RDWR | os.O_NONBLOCK


def test_looking_at_oneself_shows_no_descriptor_of_the_look() -> None:
    before = sorted(map(int, os.listdir("/proc/self/fd")))
    seen = [descriptor.number for descriptor in proc.snapshot(os.getpid(), flags=True).descriptors]
    after = sorted(map(int, os.listdir("/proc/self/fd")))
    listing = {number for number in (*before, *after) if not os.path.lexists(f"/proc/self/fd/{number}")}
    assert seen == [number for number in before if number not in listing]
    assert before == after
