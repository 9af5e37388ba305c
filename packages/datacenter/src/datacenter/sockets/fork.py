"""What a forked child must know: that it is one, and which objects it must never let Python finalise.

fork() copies every descriptor and no thread. libzmq's sockets are dead in the child, yet look alive: send() "succeeds"
and the message is lost, recv() never returns, not even a non-blocking one (signaler.cpp:149, 206; the loop in
socket_base_t::process_commands). So every object remembers the `epoch` in which it was made and refuses any use in
another one, before it takes a lock, because a lock may have been held by a thread that does not exist here.

Who notices a fork:
- Descriptors: leakline's library, in a handler of the C library (pthread_atfork). It closes the inherited numbers
  inside fork() itself, whoever calls it, before any Python runs in the child, and never through the parent's objects:
  EPOLL_CTL_DEL on a shared epoll would make the parent deaf.
- Objects: the epoch is a page that the kernel clears in every child, so that also a fork that Python was not told of
  (C code that calls fork() or clone()) is noticed. It costs 6 ns more than comparing two numbers; getpid() 180 ns.
- The module's own state (runtime, hub, ledger): Python's after-fork hook, or the first use after any other fork, which
  first has Python itself do what it does after a fork.

`still()` keeps Python's forks away while a descriptor is open and not yet in the ledger, or the reverse.
"""

from __future__ import annotations

import _imp
import contextlib
import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from datacenter.errors import ForkedError

_WIPE_ON_FORK: Final = 18  # MADV_WIPEONFORK, since Linux 4.14; Python's mmap has no name for it


class Epoch(Protocol):
    """The life of one process, as far as the next fork: `epoch[0]` is 1 in it and 0 in every child, however made."""

    pid: int

    def __getitem__(self, index: int, /) -> int: ...


class _Page(mmap.mmap):
    pid: int


class _Asking:
    """For kernels that cannot clear a page: asks for the pid each time."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __getitem__(self, index: int, /) -> int:
        return self.pid == os.getpid()


def _begin() -> Epoch:
    page = _Page(-1, 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.pid = os.getpid()
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return _Asking()
    page[0] = 1
    return page


#: of this process, unless a fork has not been noticed yet: then `current()` notices it
epoch: Epoch = _begin()

_in_child: list[Callable[[], None]] = []
_still = threading.RLock()
_python_forks = False  # in a child: whether Python knows, because it forked itself


def ended(made_in: Epoch) -> bool:
    """Whether what was made in `made_in` came here through a fork."""
    return not made_in[0]


def check(made_in: Epoch, what: str) -> None:
    """Raise ForkedError if `what`, made in `made_in`, came here through a fork."""
    if not made_in[0]:
        settle()
        raise ForkedError(
            f"{what} was made by process {made_in.pid} and is dead in its child {os.getpid()}.",
            "Make a new one here, in the child (and fork before the first one where you can): docs/fork.md.",
        )


def current() -> Epoch:
    """The epoch for an object that is being made."""
    settle()
    return epoch


def settle() -> None:
    """Begins afresh if this is a child and nobody has noticed yet. Cheap; the first thing in all that uses what a
    process has once.
    """
    if not epoch[0]:
        _tell_python()
    if not epoch[0]:
        _after_fork()


def in_child(reset: Callable[[], None]) -> None:
    """Have `reset` run in every forked child, in the order of these calls. It must take no lock of before the fork."""
    _in_child.append(reset)


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Python forks in no other thread inside: for a few statements that open, enter, forget or close a descriptor.

    Lock order: before the ledger's and admission's, after those of the runtime, the contexts and the hub.
    C code may fork: its child then has an eventfd, epoll, socket pair or file too many, but no port and no connection:
    what has one is opened and entered in one step (Ledger.open_socket).
    """
    with _still:
        yield


def keep_for_ever(thing: object) -> None:
    """Make `thing` immortal. Its finaliser would close a number that may be somebody else's by then."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _tell_python() -> None:
    """Does what the C code that forked should have done ("if there is any chance the process will call back into the
    Python interpreter"): frees Python's own locks, whose holders do not exist here, and runs all after-fork hooks.

    Only while there is no other thread, whose state it would delete.
    """
    global _python_forks, _still
    if _python_forks or len(os.listdir("/proc/self/task")) > 1:
        return
    if sys.version_info >= (3, 13):
        # There it undoes what PyOS_BeforeFork does, and aborts where that was not done.
        _still = threading.RLock()
        if not _may_prepare():
            return
        ctypes.pythonapi.PyOS_BeforeFork()
    _python_forks = True
    ctypes.pythonapi.PyOS_AfterFork_Child()


def _may_prepare() -> bool:
    """Whether PyOS_BeforeFork would return: each lock that it takes is free, or held by a thread that exists here."""
    if _imp.lock_held():
        return False
    for module, name in (("logging", "_lock"), ("concurrent.futures.thread", "_global_shutdown_lock")):
        lock = getattr(sys.modules.get(module), name, None)
        if lock is not None:
            if not lock.acquire(blocking=False):
                return False
            lock.release()
    return True


def _told() -> None:
    global _python_forks
    _python_forks = True  # also where C code has told it, which did not do so before the fork
    settle()


def _hold() -> None:
    global _python_forks
    _still.acquire()
    _python_forks = True


def _let_go() -> None:
    global _python_forks
    _python_forks = False
    _still.release()


def _after_fork() -> None:
    global epoch, _python_forks, _still
    _still = threading.RLock()
    epoch = _begin()
    _python_forks = False
    for reset in _in_child:
        reset()


os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_told)
