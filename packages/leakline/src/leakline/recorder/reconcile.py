"""A recording against what /proc says: what is really open, and where it came from. Pure.

The recorder sees what goes through libc. What is opened by a system call of its own (io_uring, Go, assembler) is in
/proc alone; what is closed so is in the recording alone; and a number that was closed so and opened again is another
thing by now, which its kind may tell. The two are never read at the same moment: the recording must be read after the
snapshot, so that what was opened or closed between them can be told from what the recorder did not see.
"""

from __future__ import annotations

from typing import Final

import msgspec

from leakline.facts import Descriptor, Snapshot
from leakline.recorder.recording import Recording, Slot

CLOCK_TICK_S: Final = (
    0.02  # the recording's times are up to a tick of the kernel's clock old: 10 ms at most, and a margin
)

_NO_SOCKETS: Final = frozenset(
    ("file", "directory", "pipe", "pty", "device", "memfd", "eventfd", "epoll", "inotify", "timerfd", "signalfd")
)
_SOCKETS: Final = ("socket", "accept", "accept4", "socketpair")
# What a function makes, where it makes nothing else.
_ONLY: Final = {
    "eventfd": "eventfd",
    "epoll_create": "epoll",
    "epoll_create1": "epoll",
    "pipe": "pipe",
    "__pipe": "pipe",
    "pipe2": "pipe",
    "popen": "pipe",
    "_IO_popen": "pipe",
    "inotify_init": "inotify",
    "inotify_init1": "inotify",
    "fanotify_init": "fanotify",
    "timerfd_create": "timerfd",
    "signalfd": "signalfd",
    "memfd_create": "memfd",
    "pidfd_open": "pidfd",
    "opendir": "directory",
    "openpty": "pty",
    "posix_openpt": "pty",
    "getpt": "pty",
    "forkpty": "pty",
    "tmpfile": "file",
    "mkstemp": "file",
    "mkostemp": "file",
}
# open() reaches files, pipes, devices, also through /proc/PID/fd, but none of these: the kernel refuses.
_NEVER_BY_PATH: Final = frozenset(("tcp", "udp", "unix", "netlink", "socket", "eventfd", "epoll", "inotify", "timerfd"))
_BY_PATH: Final = ("open", "openat", "creat", "fopen", "freopen", "__open", "_IO_fopen")
_UNKNOWN: Final = frozenset(("unknown", ""))


class Reconciled(msgspec.Struct, frozen=True):
    """What is open, by number: `slots` has those whose opening is known (or that are older, or inherited), `outside`
    those that were opened outside libc. `dropped`: slots of what was closed outside libc.
    """

    slots: tuple[Slot, ...]
    outside: tuple[Descriptor, ...] = ()
    dropped: tuple[Slot, ...] = ()


def reconcile(recording: Recording, snapshot: Snapshot | None) -> Reconciled:
    """What is open by `snapshot`, with its slot in `recording`, which was read after it. None: the process has ended,
    and what was open at the end is what the recording says.

    Left out: what was opened or closed between the two.
    """
    if snapshot is None:
        return Reconciled(recording.slots)
    recorded = {slot.number: slot for slot in recording.slots}
    kept, outside, dropped = [], [], []
    for descriptor in snapshot.descriptors:
        slot = recorded.pop(descriptor.number, None)
        if slot is not None and fits(slot.function, descriptor.kind):
            kept.append(slot)
            continue
        if slot is not None and slot.opened_at_s < snapshot.at - CLOCK_TICK_S:
            dropped.append(slot)
        changed_at = slot.opened_at_s if slot else recording.closed_at_s.get(descriptor.number, 0.0)
        if changed_at < snapshot.at - CLOCK_TICK_S:
            outside.append(descriptor)
    dropped += [slot for slot in recorded.values() if slot.opened_at_s < snapshot.at - CLOCK_TICK_S]
    return Reconciled(tuple(kept), tuple(outside), tuple(sorted(dropped, key=lambda slot: slot.number)))


def fits(function: str, kind: str) -> bool:
    """Whether `function` can have made a descriptor of this kind. True wherever that is not certain."""
    if kind in _UNKNOWN:
        return True
    if function in _SOCKETS:
        return kind not in _NO_SOCKETS
    if function in _ONLY:
        return _ONLY[function] == kind
    return not (function.startswith(_BY_PATH) and kind in _NEVER_BY_PATH)
