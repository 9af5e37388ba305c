"""Whether a function may be called in a stopped thread, by its stack: neither malloc nor the loader may be on it. Pure.

Calling dlopen takes their locks and changes their lists: in a thread that is in the middle of either it waits for
itself, or finds them half changed. Another thread may be inside: it goes on, and lets go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

# Names of what allocates, and of more: who is left alone without need is tried again.
_ALLOCATES = re.compile(
    r"alloc|free\b|memalign|^operator (new|delete)|^_*(je|tc|mi)_|^(arena|extent|tcache)_|sbrk", re.IGNORECASE
)


class Unwound(msgspec.Struct, frozen=True):
    """One frame, the innermost first: where it is, and the function's name as a debugger has it ("" or "??": none)."""

    address: int
    function: str = ""


class Places(msgspec.Struct, frozen=True):
    """What is where in a process: executable ranges with their files, and which of these are what.

    `allocators`: files other than the C library that have a malloc of their own.
    """

    code: tuple[tuple[tuple[int, int], str], ...]
    program: str
    c_library: frozenset[str]
    loader: frozenset[str]
    allocators: frozenset[str] = frozenset()

    def file_of(self, address: int) -> str:
        """ "" for what is in no file: generated code, the kernel's vdso."""
        return next((path for (start, end), path in self.code if start <= address < end), "")


def can_call(frames: Sequence[Unwound], places: Places) -> bool:
    """Whether the stack is known to its very end, and has no frame that could hold a lock of malloc or of the loader.

    The C library is only at the end of it: who is called back by it (qsort, a destructor at exit, a signal handler that
    came in the middle of it) is left alone.
    """
    files = [places.file_of(frame.address) for frame in frames]
    end = len(files)
    if end > 1 and files[-1] == places.program and files[-2] in places.c_library:
        end -= 1  # _start
    first = end
    while first > 0 and files[first - 1] in places.c_library:
        first -= 1
    if first == end or first == 0:
        return False  # not unwound to where the C library started the thread; or nothing but the C library
    return all(_is_harmless(frame, file, places) for frame, file in zip(frames[:first], files[:first], strict=True))


def _is_harmless(frame: Unwound, file: str, places: Places) -> bool:
    if not file or file in places.c_library or file in places.loader:
        return False
    nameless = frame.function in ("", "??")
    if file in places.allocators and nameless:
        return False
    return nameless or not _ALLOCATES.search(frame.function)
