"""One process of a family, as its supervisor holds it: a pipe to it and a pidfd.

The pidfd is opened while nobody but the supervisor can reap the process, so it can mean no other one, ever: neither a
signal nor an exit status can go astray, however often numbers are used again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from datacenter.prefork.pipe import Pipe
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter.prefork")
REAP_AGAIN_S = 0.02


class Child:
    """A process that was asked for; `pid` is 0 until it has said which it is. One thread: that of the running loop.

    `on_message(message)`; `on_pipe_end()` when it has closed its pipe, or never began to exist; `on_exit(status)` once,
    after its last message: the exit code, negative for a signal, None if somebody else has reaped it.
    """

    def __init__(
        self,
        end: socket.socket,
        decoder: msgspec.msgpack.Decoder[Any],
        title: str,
        *,
        ledger: Ledger,
        on_message: Callable[[Any], None],
        on_pipe_end: Callable[[], None],
        on_exit: Callable[[int | None], None],
    ) -> None:
        self.title = title
        self.pid = 0
        self.pidfd = -1
        self.heard_at = asyncio.get_running_loop().time()
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        self._on_message = on_message
        self._on_exit = on_exit
        self._pipe = Pipe(end, decoder, self._message, on_pipe_end, ledger=ledger, owner=f"pipe to {title}")

    def born(self, pid: int) -> None:
        """It is process `pid`, a child of this one. Raises OSError (ESRCH, EMFILE)."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._ledger.register(self.pidfd, "pidfd", self.title)
        self._loop.add_reader(self.pidfd, self._exited)

    def send(self, message: Any) -> None:
        """Says it; nothing happens if the process has closed its pipe."""
        self._pipe.send(message)

    def kill(self) -> bool:
        """SIGKILL. False if it was never born."""
        if self.pidfd < 0:
            return self.pid != 0
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        return True

    def close(self) -> None:
        """Lets go of it, whatever it does. Idempotent."""
        self._pipe.close()
        if self.pidfd >= 0:
            self._loop.remove_reader(self.pidfd)
            self._ledger.forget(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1

    def __repr__(self) -> str:
        return f"<Child {self.title} {self.pid or 'unborn'}>"

    def _message(self, message: Any) -> None:
        self.heard_at = self._loop.time()
        self._on_message(message)

    def _exited(self) -> None:
        try:
            found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            found = None
            # The process between it and the fork server has not ended yet, so it is not ours yet.
            if self._loop.time() - self.heard_at < 1.0:
                self._loop.remove_reader(self.pidfd)
                self._loop.call_later(REAP_AGAIN_S, self._look_again)
                return
        self._pipe.read_rest()
        self.close()
        status = None
        if found is not None:
            status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        self._on_exit(status)

    def _look_again(self) -> None:
        if self.pidfd >= 0:
            self._loop.add_reader(self.pidfd, self._exited)


def said_of(status: int | None) -> str:
    """An exit status in words: 'ended', 'failed with status 3', 'was killed by SIGKILL'."""
    if status is None:
        return "is gone"
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"failed with status {status}" if status else "ended"
