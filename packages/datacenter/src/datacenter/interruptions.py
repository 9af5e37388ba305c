"""Signals that arrive while the process cleans up wait until it has.

A Python signal handler runs in the main thread, between any two bytecodes: the second Ctrl-C of an impatient user would
raise KeyboardInterrupt in the middle of the exit hook, and what it had not yet closed would meet libzmq's threads while
the interpreter is taken apart. The hook is bounded, so they can wait.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


def uninterrupted(work: Callable[[], None]) -> None:
    """Runs `work` with every Python signal handler held back; then those that were asked for meanwhile run.

    They can end nothing any more: the exit status is the program's, and a Ctrl-C has got what it wanted. In another
    thread than the main one, where no handler ever runs, it only runs `work`.
    """
    if threading.current_thread() is not threading.main_thread():
        work()
        return
    arrived: list[int] = []
    handlers: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    try:
        with contextlib.suppress(ValueError):  # a sub-interpreter has no handlers
            for number in map(int, (signal.SIGINT, *sorted(signal.valid_signals()))):
                if number not in handlers and callable(signal.getsignal(number)):
                    handlers[number] = signal.signal(number, note)
        work()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in dict.fromkeys(arrived):
        if handlers[number] is not signal.default_int_handler:
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                signal.raise_signal(number)
