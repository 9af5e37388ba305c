"""What else ends a command in order, as Ctrl-C does: `timeout`, a service manager, a terminal that is closed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_as_by_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt once; another one while that is answered is ignored, so that what was
    begun in another process is ended there. Main thread only.
    """

    def interrupted(_number: int, _frame: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # `nohup` means it
            signal.signal(number, interrupted)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
