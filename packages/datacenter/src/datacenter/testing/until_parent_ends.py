"""Becomes another program that dies with the one that launched it. Run as a script: PARENT_PID NETWORK PROGRAM ARGS…

NETWORK: the path of a network namespace to enter first, or "" to stay. It is a program of its own, and not a
`preexec_fn`, which would run Python between fork and exec, in a copy of a process whose threads may hold any lock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000


def main() -> None:
    parent, network, *words = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if network:
        descriptor = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), network)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before we asked
        sys.exit(1)
    os.execvp(words[0], words)


if __name__ == "__main__":
    main()
