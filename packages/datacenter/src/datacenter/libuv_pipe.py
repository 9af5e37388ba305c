"""A pipe for libuv, which aborts the process where the first loop of it gets none (unix/signal.c:
uv__signal_global_reinit). It is opened before, where a refusal can be caught, and handed over when libuv asks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from leakline.recorder import LibraryMissingError, replace_import

_PIPE2 = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.c_int, use_errno=True)


@contextlib.contextmanager
def ready_for(library: str) -> Iterator[None]:
    """Within it, the first pipe2() of this loaded library (its path) succeeds. Raises OSError: there is no pipe. For a
    process of one thread. Where leakline's native library is not there, nothing is changed.
    """
    ready = list(os.pipe())
    real = ctypes.CDLL(None, use_errno=True).pipe2

    def pipe2(numbers: ctypes.Array[ctypes.c_int], flags: int) -> int:
        if not ready:
            return int(real(numbers, flags))
        for number in ready:
            os.set_blocking(number, not flags & os.O_NONBLOCK)
            os.set_inheritable(number, not flags & os.O_CLOEXEC)
        numbers[0], numbers[1] = ready
        ready.clear()
        return 0

    function, before = _PIPE2(pipe2), ctypes.c_void_p()
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    try:
        with contextlib.suppress(LibraryMissingError):
            replace_import(library, "pipe2", address, before)
        yield
    finally:
        if before.value:
            replace_import(library, "pipe2", before.value)
        for number in ready:
            os.close(number)
