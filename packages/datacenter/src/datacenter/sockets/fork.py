"""What a forked child must know: that it is one, and which objects it must never let Python finalise.

fork() copies every descriptor and no thread. libzmq's sockets are dead in the child, yet look alive: send() "succeeds"
and the message is lost, recv() never returns (signaler.cpp:149, 206). So every object of `sockets/` remembers the
`epoch` in which it was made and refuses any use in a later one, before it takes a lock, because a lock may have been
held by a thread that does not exist here.

The child closes the numbers it inherited through the ledger, never through the parent's objects: EPOLL_CTL_DEL on the
shared epoll would stop the parent's hub.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from datacenter.errors import ForkedError

#: grows by one in each forked child; compare with the value noted at creation (cheaper than getpid(), which is a system
#: call)
epoch = 0

_in_child: list[Callable[[], None]] = []


def check(made_in: int, what: str) -> None:
    """Raise ForkedError if `what`, made in epoch `made_in`, came here through fork()."""
    if made_in != epoch:
        raise ForkedError(f"{what} was made before fork() and is dead in this child.", "Make a new one in the child.")


def in_child(reset: Callable[[], None]) -> None:
    """Have `reset` run in every forked child, after the epoch has grown."""
    _in_child.append(reset)


def keep_for_ever(thing: object) -> None:
    """Make `thing` immortal. Its finaliser would close a number that may be somebody else's by then."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _after_fork() -> None:
    global epoch
    epoch += 1
    for reset in _in_child:
        reset()


os.register_at_fork(after_in_child=_after_fork)
