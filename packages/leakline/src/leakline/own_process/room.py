"""Room to look where a process has used up its descriptors: that is when it matters most what they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit

MORE = 64  # files that are open at once to read /proc, a recording, a module


@contextmanager
def room() -> Iterator[None]:
    """Lets this process open some more descriptors than its soft limit inside, as far as the hard one allows. That is
    the whole process: another thread, too, may open one more meanwhile. Where there is no room nothing is done.
    """
    soft, hard = getrlimit(RLIMIT_NOFILE)
    more = soft + MORE if hard == RLIM_INFINITY else min(soft + MORE, hard)
    if soft == RLIM_INFINITY or more == soft:
        yield
        return
    setrlimit(RLIMIT_NOFILE, (more, hard))
    try:
        yield
    finally:
        if getrlimit(RLIMIT_NOFILE) == (more, hard):
            setrlimit(RLIMIT_NOFILE, (soft, hard))
