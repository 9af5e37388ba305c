"""Calls functions in another process: its addresses from its own memory, the call itself in native/ptrace_call.c.

Everything that can be known beforehand is looked up before the process is touched: it stands still for the calls alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterator
from ctypes import c_char, c_int32, c_int64, c_uint32, c_uint64
from enum import IntEnum
from typing import Literal, NamedTuple

import msgspec

from leakline.recorder.exports import Exports
from leakline.recorder.library import library

PATIENCE_S = 5.0  # for a thread to come to a place where calls are safe
CALL_LIMIT_S = 3.0  # for one call: it waits for locks that others hold
RTLD_NOW = 2
_LIBC_DLOPEN = (
    0x80000000  # __RTLD_DLOPEN, which __libc_dlopen_mode wants (glibc before 2.34, where libdl is not loaded)
)
_PATH = 4096
_RANGES = 4


class Status(IntEnum):
    """enum leakline_remote_status of native/ptrace_call.h."""

    DONE = 0
    REFUSED = 1
    GONE = 2
    NO_SAFE_POINT = 3
    NOT_LOADED = 4
    CRASHED = 5
    TOO_LONG = 6
    FAILED = 7
    UNFINISHED = 8


class _CRange(ctypes.Structure):
    _fields_ = [("start", c_uint64), ("end", c_uint64)]


class CRemote(ctypes.Structure):
    """struct leakline_remote of native/ptrace_call.h."""

    _fields_ = [
        ("pid", c_int32),
        ("patience_ms", c_uint32),
        ("call_limit_ms", c_uint32),
        ("suspend_seccomp", c_uint32),
        ("errno_location", c_uint64),
        ("open_function", c_uint64),
        ("error_function", c_uint64),
        ("open_mode", c_uint64),
        ("function", c_uint64),
        ("has_argument", c_uint32),
        ("range_count", c_uint32),
        ("loader", _CRange),
        ("c_library", _CRange * _RANGES),
        ("library", c_char * _PATH),
        ("argument", c_char * _PATH),
        ("status", c_int32),
        ("error", c_int32),
        ("tid", c_int32),
        ("system_call", c_int32),
        ("entered", c_uint32),
        ("reserved", c_uint32),
        ("result", c_int64),
        ("handle", c_uint64),
        ("stopped_ns", c_uint64),
        ("waited_ns", c_uint64),
        ("message", c_char * 512),
    ]


class Called(msgspec.Struct, frozen=True):
    """What came of a call. `result` is what the function returned; `stopped_s`: how long one thread stood still (all of
    them where gdb made it, the interpreter where Python did).
    """

    status: Status
    result: int
    error: int
    message: str
    stopped_s: float
    waited_s: float  # of that: for a processor
    tid: int
    system_call: int
    entered: bool
    by: Literal["ptrace", "gdb", "python"] = "ptrace"

    def why(self) -> str:
        """Why it was not done, in words."""
        if self.by == "gdb" and self.status is Status.NO_SAFE_POINT:
            return (
                "none of its threads enters a system call, and whenever gdb stopped it, malloc, the loader or something"
                " unknown was on each stack"
            )
        if self.by == "gdb" and self.message:
            return f"gdb says: {self.message}"
        if self.by == "python" and self.status is Status.FAILED:
            return f"its Python says: {self.message}"
        match self.status:
            case Status.REFUSED:
                return f"ptrace was refused ({os.strerror(self.error)})"
            case Status.GONE:
                return "it ended meanwhile"
            case Status.NO_SAFE_POINT:
                return f"none of its threads came to a place where a call is safe within {PATIENCE_S:.0f} s"
            case Status.NOT_LOADED:
                return self.message or "its loader refused the library and did not say why"
            case Status.CRASHED:
                name = signal.Signals(self.error).name
                return f"the call met {name} at address {self.result:#x}; the thread was put back where it had been"
            case Status.TOO_LONG:
                return f"the call did not end within {CALL_LIMIT_S:.0f} s; the thread was put back where it had been"
            case Status.UNFINISHED:
                return "the process that makes the calls was killed"
        return f"the call could not be made ({os.strerror(self.error or errno.EIO)})"


class Mapping(NamedTuple):
    """One line of /proc/PID/maps."""

    start: int
    end: int
    permissions: str
    offset: int
    path: str  # "" for anonymous memory; " (deleted)" is taken off


def mappings(pid: int) -> Iterator[Mapping]:
    """The memory of a process, in order of its addresses. Raises OSError."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        for line in file:
            fields = line.rstrip(b"\n").split(None, 5)
            start, end = (int(number, 16) for number in fields[0].split(b"-"))
            path = os.fsdecode(fields[5]).removesuffix(" (deleted)") if len(fields) > 5 else ""
            yield Mapping(start, end, fields[1].decode(), int(fields[2], 16), path)


class Loaded(NamedTuple):
    """A library that a process has loaded: its first mapping begins at `base`."""

    path: str
    base: int
    code: tuple[tuple[int, int], ...]  # what is executable
    end: int


def loaded(pid: int) -> list[Loaded]:
    """The mapped files of a process that hold code. Raises OSError."""
    found: dict[str, list[Mapping]] = {}
    for mapping in mappings(pid):
        if mapping.path.startswith(("/", "memfd:")):
            found.setdefault(mapping.path, []).append(mapping)
    libraries = []
    for path, parts in found.items():
        code = tuple((part.start, part.end) for part in parts if "x" in part.permissions)
        first = next((part for part in parts if part.offset == 0), None)
        if code and first is not None:
            libraries.append(Loaded(path, first.start, code, max(part.end for part in parts)))
    return libraries


class Loader(msgspec.Struct, frozen=True):
    """The functions of a process's C library that loading another library takes, as addresses there."""

    dlopen: int
    dlerror: int
    errno_location: int
    mode: int
    linker: tuple[int, int]
    c_library: tuple[tuple[int, int], ...]


def named(libraries: list[Loaded], *beginnings: str) -> list[Loaded]:
    """Those whose file name begins with one of these."""
    return [one for one in libraries if os.path.basename(one.path).startswith(beginnings)]


def symbols(pid: int, one: Loaded, *names: str) -> dict[str, int]:
    """Addresses of functions that a loaded library exports, read from the process's memory: its file may be gone."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return Exports.in_memory(lambda address, size: os.pread(memory.fileno(), size, address), one.base).symbols(
            names
        )


def loader_of(pid: int, libraries: list[Loaded]) -> Loader | None:
    """How to load a library there; None without a glibc of the process's own. Raises OSError, ExportsError."""
    found: dict[str, int] = {}
    c_library = named(libraries, "libc.so.6", "libc-2.", "libdl.so.2", "libdl-2.", "libpthread.so.0", "libpthread-2.")
    for one in c_library:
        found = symbols(pid, one, "dlopen", "dlerror", "__errno_location", "__libc_dlopen_mode") | found
    linker = named(libraries, "ld-linux", "ld-2.", "ld64")
    if not linker or not ("dlopen" in found or "__libc_dlopen_mode" in found):
        return None
    private = "dlopen" not in found
    return Loader(
        dlopen=found["__libc_dlopen_mode" if private else "dlopen"],
        dlerror=0 if private else found.get("dlerror", 0),
        errno_location=found.get("__errno_location", 0),
        mode=RTLD_NOW | (_LIBC_DLOPEN if private else 0),
        linker=(linker[0].base, linker[0].end),
        c_library=tuple(part for one in c_library for part in one.code)[:_RANGES],
    )


def call(
    pid: int,
    loader: Loader,
    function: int,
    argument: str | None = None,
    *,
    library_path: str | None = None,
    suspend_seccomp: bool = False,
    patience_s: float | None = None,
) -> Called:
    """Calls `function(argument)` (a path, or NULL) in one of the process's threads, the others running on.

    With `library_path` that library is loaded first, and `function` is an offset into it. Takes milliseconds when a
    thread waits anywhere, and at most `patience_s` (PATIENCE_S) + some CALL_LIMIT_S. Safe in any thread: a child calls.
    """
    remote = CRemote(
        pid=pid,
        patience_ms=int((PATIENCE_S if patience_s is None else patience_s) * 1000),
        call_limit_ms=int(CALL_LIMIT_S * 1000),
        suspend_seccomp=int(suspend_seccomp),
        errno_location=loader.errno_location,
        open_function=loader.dlopen if library_path is not None else 0,
        error_function=loader.dlerror,
        open_mode=loader.mode,
        function=function,
        has_argument=int(argument is not None),
        range_count=len(loader.c_library),
        loader=_CRange(*loader.linker),
        library=os.fsencode(library_path or ""),
        argument=os.fsencode(argument or ""),
    )
    for number, (start, end) in enumerate(loader.c_library):
        remote.c_library[number] = _CRange(start, end)
    status = library().remote_run(ctypes.byref(remote))
    return Called(
        status=Status(status),
        result=_int32(remote.result),
        error=remote.error,
        message=remote.message.decode(errors="replace"),
        stopped_s=remote.stopped_ns / 1e9,
        waited_s=remote.waited_ns / 1e9,
        tid=remote.tid,
        system_call=remote.system_call,
        entered=bool(remote.entered),
    )


def _int32(value: int) -> int:
    # The function returns an int: the upper half of the register says nothing.
    return int(struct.unpack("<i", struct.pack("<q", value)[:4])[0])
