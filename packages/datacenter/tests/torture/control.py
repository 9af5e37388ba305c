"""Builds the injector, and steers it through the file that both map (struct control in injector.c)."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("injector.c")
_HEAD = struct.Struct("<6I")  # armed, calls, fail_at, for_good, error, failed
_RECORDS, _NAME, _WHERE = 1024, 16, 48
_SIZE = _HEAD.size + _RECORDS * (_NAME + _WHERE)


def build(directory: Path) -> Path:
    """Compiles the library into `directory`; returns its path."""
    library = directory / "injector.so"
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


class Control:
    """The steering of one injector. A forked child shares it with its parent."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    def set(self, fail_at: int, error: int, for_good: bool) -> None:
        """What is to fail from the next `arm` on; `fail_at` 0: nothing, only count. Counts begin anew."""
        self._map[: _HEAD.size] = _HEAD.pack(0, 0, fail_at, for_good, error, 0)

    def arm(self, pid: int = 0) -> None:
        """Calls of this process (or of `pid`) count from now on."""
        struct.pack_into("<I", self._map, 0, pid or os.getpid())

    def disarm(self) -> None:
        struct.pack_into("<I", self._map, 0, 0)

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        self.arm()
        try:
            yield
        finally:
            self.disarm()

    @property
    def armed_pid(self) -> int:
        return int(struct.unpack_from("<I", self._map, 0)[0])

    @property
    def calls(self) -> int:
        return int(struct.unpack_from("<I", self._map, 4)[0])

    @property
    def failed(self) -> int:
        return int(struct.unpack_from("<I", self._map, 20)[0])

    def records(self) -> list[str]:
        """The calls in their order, as "eventfd libzmq.so.5"."""
        found = []
        for index in range(min(self.calls, _RECORDS)):
            start = _HEAD.size + index * (_NAME + _WHERE)
            name, where = struct.unpack_from(f"{_NAME}s{_WHERE}s", self._map, start)
            found.append(f"{_text(name)} {_text(where)}")
        return found


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def wait_until(condition: object, what: str, deadline_s: float) -> None:
    """Returns when `condition()` is true; TimeoutError, naming `what`, after the deadline."""
    assert callable(condition)
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.002)
