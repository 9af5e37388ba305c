"""Which thread of libzmq stands still, and since when: an accumulator over samples of threads. Pure.

libzmq's I/O threads and reaper have one place to sleep: epoll_wait. When one sleeps in poll() instead, it is inside a
blocking zmq_msg_send() (libzmq src/signaler.cpp:219), and its voluntary context switches stop counting up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from leakline.facts import Thread

ThreadRole = Literal["io", "reaper", "unknown"]

# libzmq src/ctx.cpp: names are "ZMQbg/IO/0" and "ZMQbg/Reaper", after the application's own "prefix/" if it has one.
_MARK = "ZMQbg"
_NAME_LENGTH = 15  # the kernel cuts names here (TASK_COMM_LEN)


class Standstill(msgspec.Struct, frozen=True):
    """One thread over an observation: `seconds` is how long, until the last sample, it slept outside epoll unmoved.

    `wakes`: how often it woke in `watched` seconds (its voluntary context switches), seen in `moved` of the samples.
    """

    tid: int
    name: str
    role: ThreadRole
    seconds: float
    wait_channel: str | None
    context_switches: int | None
    samples: int
    wakes: int = 0
    watched: float = 0.0
    moved: int = 0

    @property
    def wakes_per_second(self) -> float:
        return self.wakes / self.watched if self.watched > 0 else 0.0


def role_of(name: str) -> ThreadRole | None:
    """The role of a libzmq thread by its name, None if it is none of libzmq's. A name cut too short leaves it
    unknown.
    """
    at = name.find(_MARK)
    if at >= 0:
        rest = name[at + len(_MARK) :]
        if rest.startswith("/I"):
            return "io"
        return "reaper" if rest.startswith("/R") else "unknown"
    head, slash, tail = name.rpartition("/")
    if slash and head and len(name) == _NAME_LENGTH and len(tail) >= 2 and _MARK.startswith(tail):
        return "unknown"
    return None


def roles_of(threads: Iterable[Thread], uses_libzmq: bool) -> dict[int, ThreadRole]:
    """libzmq's threads among these, by tid.

    A libzmq that was built for an old C library names none (thread.cpp:366). They are known then by the signals that
    they block: all (thread.cpp:220). A context starts its reaper first, then, as a rule, one I/O thread (ctx.cpp:427).
    """
    threads = sorted(threads, key=lambda thread: thread.tid)
    named = {thread.tid: role for thread in threads if (role := role_of(thread.name)) is not None}
    if named or not uses_libzmq:
        return named
    deaf = [thread.tid for thread in threads if thread.deaf]
    pairs: tuple[ThreadRole, ThreadRole] = ("reaper", "io") if len(deaf) % 2 == 0 else ("unknown", "unknown")
    return {tid: pairs[index % 2] for index, tid in enumerate(deaf)}


def is_blocked(thread: Thread) -> bool:
    """Sleeps where a libzmq background thread has no business: in poll (a full pipe), or for a lock held by one who
    is.
    """
    channel = thread.wait_channel or ""
    if thread.state != "S" or "epoll" in channel or channel == "ep_poll":
        return False
    return "poll" in channel or "futex" in channel


class StandstillWatch:
    """Feed it each sample of one thread, oldest first. Not thread-safe."""

    def __init__(self, at: float, thread: Thread) -> None:
        self._since: float | None = at if is_blocked(thread) else None
        self._at = self._began = at
        self._first = self._thread = thread
        self._samples = 1
        self._moved = 0

    @property
    def name(self) -> str:
        """The thread's name, as last seen."""
        return self._thread.name

    def add(self, at: float, thread: Thread) -> None:
        """One more sample, later than all before."""
        moved = thread.context_switches != self._thread.context_switches
        if not is_blocked(thread):
            self._since = None
        elif moved or self._since is None:
            self._since = at
        self._moved += moved
        self._at, self._thread, self._samples = at, thread, self._samples + 1

    def seen(self, role: ThreadRole) -> Standstill:
        """What is known by now."""
        return Standstill(
            tid=self._thread.tid,
            name=self._thread.name,
            role=role,
            seconds=0.0 if self._since is None else self._at - self._since,
            wait_channel=self._thread.wait_channel,
            context_switches=self._thread.context_switches,
            samples=self._samples,
            wakes=(self._thread.context_switches or 0) - (self._first.context_switches or 0),
            watched=self._at - self._began,
            moved=self._moved,
        )
