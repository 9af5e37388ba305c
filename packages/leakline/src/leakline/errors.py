"""Every error that leakline raises for a reason that its user can act on: what happened, to what, what to type next.

The command line prints `message` and `hint` on stderr, then exits with `exit_code`
(2: wrong usage, 3: could not observe).
All of them can be pickled and raised from any thread.
"""

from __future__ import annotations


class LeaklineError(Exception):
    """Base of all errors of leakline: something could not be observed.

    `hint` says what to do or type next ("" where nothing helps).
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(LeaklineError):
    """The command was typed in a way that has no meaning."""

    exit_code = 2


class NoSuchProcessError(LeaklineError):
    """No process has that number or name, or it ended while it was being read."""


class AmbiguousNameError(LeaklineError):
    """Several processes have that name. `candidates` are their (pid, command), lowest pid first."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "", candidates: tuple[tuple[int, str], ...] = ()) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, candidates)
        self.candidates = candidates


class NotPermittedError(LeaklineError):
    """The kernel does not let this user look into that process."""


class ZombieError(LeaklineError):
    """The process has ended; only its exit status is left, which its parent has not collected."""


class KernelThreadError(LeaklineError):
    """A thread of the kernel: it has no descriptors."""


class UnsupportedError(LeaklineError):
    """This system lacks what is needed (no /proc, not Linux)."""
