"""The fork server: a process that imports what the workers need, connects to nothing, and forks when it is told to.

    python -m datacenter.prefork.fork_server        (descriptor 3: the pipe to its supervisor)

Every process of a family comes from it, replacements too. So none inherits a connection, an event loop, a thread or a
lock that somebody holds: there are none here. It is started by exec, and holds its standard streams and one pipe.

It forks twice, and the process between ends at once: the grandchild belongs to the supervisor (the nearest subreaper,
prctl(2) PR_SET_CHILD_SUBREAPER), which learns how it ended whatever becomes of the fork server.

When the supervisor has died, the fork server sees to it that the family ends: it waits for those that end by themselves
(each sees the end of its pipe), and then kills the rest, also an interpreter that is stuck in C code.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw

from datacenter.errors import DatacenterError, ProtocolError
from datacenter.prefork import messages
from datacenter.prefork.framing import framed
from datacenter.prefork.surroundings import strange_descriptors, strange_threads

CONTROL: Final = 3
#: Ctrl-C reaches every process of the terminal, a service manager's SIGTERM every one of the group: the supervisor says
#: who ends, and when. It starts this program with these blocked.
NOT_FOR_US: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAX_PACKET: Final = 128 * 1024
_PR_SET_NAME: Final = 15

#: what a forked process does: called when all that is the fork server's is gone from its stack
Job = Callable[[], None]
#: the entry of a forked process: its end of the pipe, what Prepare brought
Entry = Callable[[socket.socket, Raw], None]


class ForkServer:
    """`run()` returns None when it is over, and in each forked process what that one has to do."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._arguments = Raw(b"")
        self._patience_s = 0.0
        self._guarded: list[int] = []

    def run(self) -> Job | None:
        while True:
            data, numbers, _, _ = socket.recv_fds(self._control, MAX_PACKET, 1)
            if not data:
                self._end_family()
                return None
            message = messages.decoded(messages.to_fork_server, data)
            self._forget_ended()
            match message:
                case messages.Prepare():
                    self._prepare(message)
                case messages.Guard():
                    self._guarded += numbers
                case messages.Fork():
                    job = self._fork(message, numbers[0])
                    if job is not None:
                        return job
                case messages.Release():
                    return None

    def _say(self, message: messages.FromForkServer) -> None:
        self._control.send(messages.encode(message))

    def _prepare(self, message: messages.Prepare) -> None:
        self._arguments, self._patience_s = message.arguments.copy(), message.patience_s
        try:
            found(message.function)(self._arguments)
        except DatacenterError as error:
            self._say(messages.NotPrepared(error.code, error.message, error.hint))
            return
        problem = strange_descriptors(allowed={CONTROL})
        if problem is not None:
            self._say(messages.NotPrepared(problem.code, problem.message, problem.hint))
            return
        self._say(messages.Prepared(strange_threads()))

    def _fork(self, message: messages.Fork, pipe: int) -> Job | None:
        """None here; in the new process what it has to do."""
        try:
            between = os.fork()
            if not between:
                _leave_grandchild()
        except OSError as error:
            between = 0
            reason = error.strerror or str(error)
        else:
            if not between:
                return self._become(message, pipe)
            _, status = os.waitpid(between, 0)
            reason = os.strerror(os.waitstatus_to_exitcode(status)) if status else ""
        os.close(pipe)
        if reason:
            self._say(messages.NotForked(message.number, reason))
        return None

    def _become(self, message: messages.Fork, pipe: int) -> Job:
        """In the new process: only its pipe is left of what the fork server has."""
        self._control.close()
        for number in self._guarded:
            os.close(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        name_process(message.title)
        end = socket.socket(fileno=pipe)
        end.sendall(framed(messages.encode(messages.Started(os.getpid()))))
        entry: Entry = found(message.function)
        return functools.partial(_live, entry, end, self._arguments)

    def _forget_ended(self) -> None:
        for number in _ended(self._guarded, 0.0):
            self._guarded.remove(number)
            os.close(number)

    def _end_family(self) -> None:
        end = time.monotonic() + self._patience_s
        while self._guarded and (left := end - time.monotonic()) > 0:
            for number in _ended(self._guarded, left):
                self._guarded.remove(number)
        for number in self._guarded:
            signal.pidfd_send_signal(number, signal.SIGKILL)


def _live(entry: Entry, end: socket.socket, arguments: Raw) -> None:
    """The life of a forked process. If it cannot begin, the supervisor is told why, and says so once for all."""
    try:
        entry(end, arguments)
    except DatacenterError as error:
        try:
            end.sendall(framed(messages.encode(messages.NotPrepared(error.code, error.message, error.hint))))
        except OSError:  # it had taken its pipe, and closed it
            print(f"datacenter: {error}", file=sys.stderr)
        sys.exit(1)


def _leave_grandchild() -> None:
    """In the process between: makes another one and ends; returns in that one."""
    try:
        grandchild = os.fork()
    except OSError as error:
        os._exit(error.errno or 1)
    if grandchild:
        os._exit(0)


def _ended(pidfds: list[int], timeout_s: float) -> list[int]:
    poll = select.poll()
    for number in pidfds:
        poll.register(number, select.POLLIN)
    return [number for number, _ in poll.poll(timeout_s * 1000)] if pidfds else []


def found(function: str) -> Any:
    """'module:name' -> what it names."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def name_process(title: str) -> None:
    """What `ps -o comm`, `top` and `pstree` show: 15 bytes."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, title.encode()[:15], 0, 0, 0)


def process_name() -> str:
    """What `name_process` has said."""
    with open("/proc/self/comm") as file:
        return file.read().strip()


def pass_over(_number: int, _frame: object) -> None:
    """A handler that does nothing. Not SIG_IGN, which would also hold in the programs that a worker starts."""


def main() -> None:
    for number in NOT_FOR_US:
        signal.signal(number, pass_over)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_FOR_US)
    sys.argv[:] = ["datacenter"]
    name_process("fork-server")
    control = socket.socket(fileno=CONTROL)
    os.set_inheritable(CONTROL, False)
    try:
        job = ForkServer(control).run()
    except (BrokenPipeError, ConnectionResetError, ProtocolError):
        return
    if job is not None:
        job()


if __name__ == "__main__":
    main()
