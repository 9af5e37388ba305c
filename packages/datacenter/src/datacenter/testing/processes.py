"""One process started for a test: what it said and when, how to stop it, and that it is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

READY_S = 20.0
END_S = 10.0
_HELPER = str(Path(__file__).with_name("until_parent_ends.py"))


class NotReadyError(AssertionError):
    """A process did not say in time what was waited for; the message holds what it said instead."""


class _Pidfd:
    """Readable once the process has ended."""

    def __init__(self, pid: int) -> None:
        self._number = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        os.close(self._number)


class Process:
    """A running program. Its standard output is read line by line with the time of each, its errors are kept in a file.

    Start it from a thread that lives as long as the process shall: the kernel kills it when that thread ends
    (PR_SET_PDEATHSIG). Thread-safe otherwise. Not for use after a fork.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        network: str = "",
    ) -> None:
        """`environment` is added to ours. `network`: path of a network namespace to run in (needs root)."""
        self.words = tuple(words)
        self.lines: list[tuple[float, str]] = []  # (time.monotonic(), text), oldest first
        self._changed = threading.Condition()
        self._finished = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by release)
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", _HELPER, str(os.getpid()), network, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        self.pid = self._popen.pid
        self._reader = threading.Thread(target=self._read, name=f"output of {self.pid}", daemon=True)
        self._reader.start()

    # --- what it says

    def wait_line(self, pattern: str, deadline_s: float = READY_S, *, after: int = 0) -> tuple[float, re.Match[str]]:
        """(time, match) of the first line, from number `after` on, that holds `pattern`. Raises NotReadyError."""
        wanted = re.compile(pattern)
        limit = time.monotonic() + deadline_s
        seen = after
        with self._changed:
            while True:
                for at, line in self.lines[seen:]:
                    seen += 1
                    found = wanted.search(line)
                    if found:
                        return at, found
                left = limit - time.monotonic()
                if self._finished or left <= 0:
                    break
                self._changed.wait(left)
        raise NotReadyError(self._story(f"did not print {pattern!r} within {deadline_s:g} s"))

    def output(self, deadline_s: float = END_S) -> str:
        """Everything that it wrote to standard output until it closed it, as a rule at its end; else NotReadyError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._finished, deadline_s):
                raise NotReadyError(self._story(f"did not close its output within {deadline_s:g} s"))
            return "\n".join(line for _, line in self.lines)

    def tell(self, line: str) -> None:
        """Writes one line to its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{line}\n".encode())
        self._popen.stdin.flush()

    @property
    def errors(self) -> str:
        """Everything it wrote to standard error so far."""
        # pread: the child shares the file's position, and writes at it.
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    # --- its end

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self._popen.kill()
        self.wait()

    def wait(self, deadline_s: float = END_S) -> int:
        """Its exit status, negative for a signal. Raises NotReadyError if it does not end by itself."""
        # Popen.wait(timeout) sleeps up to 50 ms between looks; a pidfd tells at once.
        if self._popen.returncode is None:
            with contextlib.closing(_Pidfd(self.pid)) as end:
                select.select([end], [], [], deadline_s)
        status = self._popen.poll()
        if status is None:
            raise NotReadyError(self._story(f"did not end within {deadline_s:g} s"))
        return status

    def end(self, deadline_s: float = END_S) -> int:
        """SIGTERM, and waits; SIGKILL after `deadline_s`. Returns the status. Idempotent."""
        if self.running:
            self.signal(signal.SIGCONT)  # a stopped process takes no other signal
            self.signal(signal.SIGTERM)
            try:
                self._popen.wait(deadline_s)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        return self._popen.wait()

    def release(self) -> None:
        """Ends it at once if it runs, and closes what belongs to it here. Idempotent."""
        self._popen.kill()
        self._popen.wait()
        self._reader.join(END_S)
        for stream in (self._popen.stdin, self._popen.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended with {self._popen.returncode}"
        return f"<Process {self.pid} {' '.join(self.words[-3:])!r}, {state}>"

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for raw in self._popen.stdout:
            with self._changed:
                self.lines.append((time.monotonic(), raw.decode(errors="replace").rstrip("\n")))
                self._changed.notify_all()
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def _story(self, what: str) -> str:
        said = "\n".join(line for _, line in self.lines[-20:])
        return f"{self!r} {what}\n--- its output\n{said}\n--- its errors\n{self.errors[-4000:]}"
