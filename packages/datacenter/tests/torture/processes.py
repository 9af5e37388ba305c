"""Processes of one case: forked from a nursery that has imported everything, so that a case costs milliseconds.

A forked child leaves the nursery's loop by an exception and runs its program from the top of the interpreter: it ends
as a program of a user's does, exit hooks and all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from control import wait_until

DEADLINE_S = 10.0
#: so many in a row that find nothing, 10 ms apart: looks and not seconds, since this process may get no core either
CALM_LOOKS = 10
_TICKS = os.sysconf("SC_CLK_TCK")


class InChildError(BaseException):
    """Unwinds a forked child to the top, where `program` is run."""

    def __init__(self, program: Callable[[], object]) -> None:
        self.program = program


class Process:
    """A forked child. Only the nursery uses it."""

    def __init__(self, program: Callable[[], object], log: Path) -> None:
        self.log = log
        self.status: int | None = None
        self.cpu_s = 0.0
        log.unlink(missing_ok=True)  # of an earlier case
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for target, source in ((0, nothing), (1, number), (2, number)):
                os.dup2(source, target)
            os.closerange(3, 64)
            raise InChildError(program)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def poll(self) -> int | None:
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.cpu_s = usage.ru_utime + usage.ru_stime
        return self.status

    def wait(self, what: str, deadline_s: float = DEADLINE_S) -> int:
        """Its exit code, -N for a signal. TimeoutError."""
        wait_until(lambda: self.poll() is not None, what, deadline_s)
        assert self.status is not None
        return self.status

    def wait_for(self, text: str, deadline_s: float = DEADLINE_S) -> bool:
        """Until its output contains `text`, True; False if it ended before. TimeoutError."""
        wait_until(lambda: text in self.text() or self.poll() is not None, f"{text!r} in the output", deadline_s)
        return text in self.text()

    def signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGCONT)
            self.wait("killed", 5.0)

    def cpu_now_s(self) -> float:
        """CPU time so far, of a live process."""
        try:
            words = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return self.cpu_s
        return (int(words[11]) + int(words[12])) / _TICKS

    def runs(self) -> bool:
        """Whether any of its threads runs, would if there were a core for it, or waits inside the kernel: for the 65th
        descriptor the kernel makes its table larger, and waits for all cores (synchronize_rcu in fs/file.c) meanwhile.
        """
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                if (task / "stat").read_text().rsplit(")", 1)[1].split()[0] in "RD":
                    return True
        return False

    def stacks(self) -> str:
        """Its threads' states and where they wait, for a report of a hang."""
        found = []
        for task in sorted(Path(f"/proc/{self.pid}/task").iterdir()):
            try:
                state = (task / "stat").read_text().rsplit(")", 1)[1].split()[0]
                found.append(f"{(task / 'comm').read_text().strip()}: {state} {(task / 'wchan').read_text().strip()}")
            except OSError:
                continue
        return "; ".join(found)


def kinds(pid: int | None = None) -> Counter[str]:
    """Open descriptors by kind."""
    folder = Path(f"/proc/{pid or 'self'}/fd")
    found: Counter[str] = Counter()
    for entry in list(folder.iterdir()):
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        found[target.split(":", 1)[0] if target.startswith(("socket:", "pipe:")) else target] += 1
    found.pop(f"/proc/{pid or os.getpid()}/fd", None)
    return found


def at_rest(process: Process) -> None:
    """Waits until a process opens and closes nothing for a while: its hub takes the reserve after it says "ready".

    No thread of it may wait for a core either: what libzmq's reaper has yet to close would be taken for its own.
    """
    before, calm, end = kinds(process.pid), 0, time.monotonic() + DEADLINE_S
    while calm < CALM_LOOKS:
        if time.monotonic() > end:
            raise TimeoutError("the process does not come to rest")
        time.sleep(0.01)
        now = kinds(process.pid)
        calm = 0 if now != before or process.runs() else calm + 1
        before = now


def settle(condition: Callable[[], str], deadline_s: float = 5.0) -> str:
    """Waits until `condition()` says nothing is wrong; what it says at the end."""
    end = time.monotonic() + deadline_s
    while (wrong := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return wrong
