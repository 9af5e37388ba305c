"""How many descriptors the process may still open, asked before libzmq is, because libzmq aborts where it runs out
half-way.

The rows of facts that end in abort() (libzmq 4.3.5): the first socket of a context with 2 to 4 descriptors spare
(epoll.cpp:38); a bind to a literal IP with none spare, since getifaddrs() needs one (ip_resolver.cpp:542); a context
ended with an inproc connect pending and no room for a socket (ctx.cpp:142). None can be caught afterwards; so nothing
is begun unless `RESERVE` descriptors stay free after it. The count and the use are not one step: other threads may open
descriptors in between. That is what the size of the reserve is for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from typing import Final

from datacenter.errors import DescriptorLimitError
from datacenter.options import option

RESERVE: Final = option(
    "limits", "reserve", 16, "descriptors", "L",
    "Kept free when a socket is made, bound or connected: without any, libzmq aborts in some calls, and its listeners "
    "spin.",
)  # fmt: skip
CONTEXT_COST: Final = 6  # a started context: 3 eventfd + 2 epoll, and the socket that starts it
SOCKET_COST: Final = 1  # its mailbox
MONITOR_COST: Final = 2  # the hidden PAIR's mailbox and the reader's
HUB_COST: Final = 2  # epoll and wake-up
BIND_COST: Final = 2  # the listener, and what looks for it in /proc, a few for a moment (epoll_entry.py)
CONNECT_COST: Final = 1

_when_short: list[Callable[[], None]] = []

#: what the kernel says when it gives no descriptor: this process's limit, the machine's, or no memory
SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

#: libzmq's own bound (ZMQ_SOCKET_LIMIT); slots are a table made at the first socket
_MOST_SOCKETS: Final = 65_535
_FEWEST_SOCKETS: Final = 16


def limit() -> int:
    """The soft RLIMIT_NOFILE of this process."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def open_count() -> int:
    """How many descriptors this process has open. O(1) from Linux 6.2 on; before, one readdir (which needs a descriptor
    itself).

    Returns the limit itself where even that one cannot be had.
    """
    try:
        # The size of /proc/self/fd is the number of descriptors since Linux 6.2 (fs/proc/fd.c: proc_fd_getattr), 0
        # before.
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return limit()


def spare() -> int:
    """Descriptors that may still be opened; never negative."""
    return max(0, limit() - open_count())


def require(cost: int, what: str) -> None:
    """Raise DescriptorLimitError unless `cost` descriptors can be opened for `what` with RESERVE left over.

    What is held back from peers (admission.py) is let go of first, if it takes that.
    """
    free = spare()
    if free < cost + RESERVE and _when_short:
        for make_room in _when_short:
            make_room()
        free = spare()
    if free < cost + RESERVE:
        raise DescriptorLimitError(
            f"{what} needs {cost} descriptors and a reserve of {RESERVE}, and only {free} of {limit()} are free.",
            f"Raise the limit (ulimit -n), or ask `leakline {os.getpid()}` what holds them.",
        )


def on_shortage(make_room: Callable[[], None]) -> None:
    """Have `make_room` called when descriptors are short, before they are refused."""
    _when_short.append(make_room)


def refused(number: int, what: str) -> DescriptorLimitError:
    """The error for a descriptor that the kernel refused, by errno: whose limit it was, and what to do."""
    hints = {
        errno.EMFILE: f"Raise the limit (ulimit -n), or ask `leakline {os.getpid()}` what holds them.",
        errno.ENFILE: "The machine has no more (/proc/sys/fs/file-nr): raise fs.file-max, or end what holds it.",
        errno.ENOMEM: "The kernel has no memory for it: see the limits of the machine and of the control group.",
    }
    return DescriptorLimitError(f"No descriptor is to be had for {what}: {os.strerror(number)}.", hints[number])


@contextlib.contextmanager
def typed(what: str) -> Iterator[None]:
    """Inside, an OSError that says that `what` got no descriptor becomes a DescriptorLimitError."""
    try:
        yield
    except OSError as error:
        if error.errno not in SHORTAGES:
            raise
        raise refused(error.errno, what) from error


def max_sockets() -> int:
    """The size of a context's socket table, so that descriptors run out before slots do.

    A monitored connection takes three slots (socket, hidden PAIR, reader) and four descriptors (those three mailboxes
    and the TCP connection); an unmonitored one takes one slot and two descriptors. Hence three slots for four
    descriptors. libzmq's default of 1023 would end with "Too many open files" however high the limit is (ctx.cpp:475).
    """
    return max(_FEWEST_SOCKETS, min(_MOST_SOCKETS, (limit() - RESERVE) * 3 // 4))
