"""The supervisor's side of one fork server: starts it, has it prepare and fork, and notices its end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

from datacenter.errors import ProtocolError
from datacenter.prefork import messages
from datacenter.prefork.fork_server import CONTROL, MAX_PACKET, NOT_FOR_US
from datacenter.sockets import fork
from datacenter.sockets.ledger import Ledger

log = logging.getLogger("datacenter.prefork")
_PR_SET_CHILD_SUBREAPER: Final = 36


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans: of what a fork server forks (it ends the process
    between). Until the end of the process, also over exec; children do not inherit it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_strangers(known: set[int]) -> None:
    """Reaps ended children that are none of `known`; stops at one that is, whose status is wanted elsewhere."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in known:
            return
        os.waitpid(found.si_pid, 0)


class ForkServerLink:
    """A fork server that has been started. `on_answer(link, message)`; `on_exit(link, status)` once, not after `close`.

    One thread: that of the running loop. Raises OSError if it cannot be started.
    """

    def __init__(
        self,
        prepare: messages.Prepare,
        *,
        ledger: Ledger,
        on_answer: Callable[[ForkServerLink, messages.FromForkServer], None],
        on_exit: Callable[[ForkServerLink, int], None],
    ) -> None:
        self.prepared = False
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        self._on_answer = on_answer
        self._on_exit = on_exit
        self._closed = False
        # Packets: each keeps its bounds, and the descriptors that travel with it.
        self._end, theirs = pair(socket.SOCK_SEQPACKET)
        try:
            self.pid = _spawn(theirs.fileno())
            self._pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self._end.close()
            raise
        finally:
            theirs.close()
        self._end.setblocking(False)
        ledger.register(self._end.fileno(), "unix", "pipe to fork server")
        ledger.register(self._pidfd, "pidfd", "fork server")
        self._loop.add_reader(self._end.fileno(), self._readable)
        self._loop.add_reader(self._pidfd, self._exited)
        self.tell(prepare)

    def tell(self, message: messages.ToForkServer, descriptor: int | None = None) -> None:
        """Sends a message; a fork server that takes no more is stuck, and killed."""
        if self._closed:
            return
        try:
            socket.send_fds(self._end, [messages.encode(message)], [] if descriptor is None else [descriptor])
        except BlockingIOError:
            log.error("the fork server (pid %d) does not read what it is told; it is killed", self.pid)
            self.kill()
        except OSError:
            pass  # it has ended; that is heard in a moment

    def kill(self) -> None:
        if not self._closed:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Lets go of it: it ends by itself when it sees that. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for number in (self._end.fileno(), self._pidfd):
            self._loop.remove_reader(number)
            self._ledger.forget(number)
        self._end.close()
        os.close(self._pidfd)

    def _readable(self) -> None:
        try:
            data = self._end.recv(MAX_PACKET)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._end.fileno())  # its end is told by the pidfd
            return
        try:
            message = messages.decoded(messages.from_fork_server, data)
        except ProtocolError as error:
            log.error("fork server (pid %d): %s; it is killed", self.pid, error.message)
            self.kill()
            return
        self.prepared = self.prepared or isinstance(message, messages.Prepared)
        self._on_answer(self, message)

    def _exited(self) -> None:
        while self._end.fileno() >= 0 and not self._closed:
            try:
                data = self._end.recv(MAX_PACKET)
            except OSError:
                break
            if not data:
                break
            self._on_answer(self, messages.decoded(messages.from_fork_server, data))
        found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        self.close()
        exited = found is not None and found.si_code == os.CLD_EXITED
        self._on_exit(self, 0 if found is None else found.si_status if exited else -found.si_status)


def pair(kind: socket.SocketKind = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    """Two connected unix sockets without a name, not inherited over exec."""
    with fork.still():
        return socket.socketpair(socket.AF_UNIX, kind)


def _spawn(control: int) -> int:
    """A fresh interpreter that runs the fork server with `control` as its descriptor CONTROL, and with nothing else of
    ours: also not what this process was itself given by mistake.
    """
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            # Not by a file action: posix_spawn refuses to close a number beyond the present RLIMIT_NOFILE.
            if int(name) > CONTROL:
                os.set_inheritable(int(name), False)
    words = [sys.executable, "-m", "datacenter.prefork.fork_server"]
    return os.posix_spawn(
        sys.executable,
        words,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, control, CONTROL)],
        setsigmask=NOT_FOR_US,  # from its first moment: the interpreter's start alone takes a tenth of a second
    )
