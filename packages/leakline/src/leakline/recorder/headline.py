"""The headline of a stack: the innermost frame of the user's own code, which is where the fix will be; and origins
grouped by it. Pure.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import TypeVar

import msgspec

from leakline.facts import Frame, Origin
from leakline.recorder.merge import OFFSET, SIGNAL_FRAME, is_interpreter


class Whose(IntEnum):
    """Whose code a frame is, the best headline first."""

    USER = 0
    UNSURE = 1  # a shared library outside the system's folders, without lines: own, or somebody's
    HEADER = 2  # a header-only wrapper, inlined or instantiated in the user's program
    PACKAGE = 3  # installed beside the program: site-packages, a Rust crate
    NAMELESS = 4  # an address in a program, or in a library outside the system's folders, that was stripped
    SYSTEM = 5  # the system's libraries, the language's standard library
    UNKNOWN = 6  # no name, and not the user's own


_SYSTEM_FOLDERS = ("/usr/", "/lib/", "/lib64/", "/lib32/", "/nix/store/", "/snap/")
_SHARED = re.compile(r"\.so(\.|$)")
# Libraries that are never the user's own, wherever they lie (a container's, a conda environment's, a wheel's).
_RUNTIMES = re.compile(
    r"(ld-linux|ld-musl|ld\.so|ld-\d|linux-vdso|libleakline|lib(c|m|dl|rt|pthread|resolv|util|anl|gcc_s|stdc\+\+|c\+\+|c\+\+abi"
    r"|gomp|asan|tsan|ubsan|zmq|sodium|ssl|crypto|curl|uv|jemalloc|tcmalloc|z|boost_\w+|python\d[\d.]*\w*)[-.])"
)
_PYTHON_PACKAGES = re.compile(r"(^|/)(site|dist)-packages/")
_PYTHON_LIBRARY = re.compile(r"(^|/)(lib(64|32)?/python\d\.\d+|python\d{2,3}\.zip)/")
_HEADERS = re.compile(r"(^|/)include/")
_RUST_LIBRARY = re.compile(r"(^/rustc/|/rustlib/src/rust/library/)")
_RUST_PACKAGES = re.compile(r"/\.?cargo/(registry|git)/")


def headline(frames: Sequence[Frame]) -> Frame:
    """The innermost frame of the user's own code; if there is none, the innermost of what is nearest to it, at last
    of anything named. Raises ValueError without frames.
    """
    return frames[headline_index(frames)]


def headline_index(frames: Sequence[Frame]) -> int:
    """Where in `frames` the headline is. Raises ValueError without frames."""
    return min(range(len(frames)), key=lambda index: (whose(frames[index]), index))


@functools.lru_cache(maxsize=1 << 16)
def whose(frame: Frame) -> Whose:
    """Whose code a frame is."""
    return _whose_python(frame) if frame.language == "python" else _whose_native(frame)


def _whose_python(frame: Frame) -> Whose:
    if not frame.file:
        return Whose.UNKNOWN
    if _PYTHON_PACKAGES.search(frame.file):
        return Whose.PACKAGE
    if frame.file.startswith("<frozen ") or _PYTHON_LIBRARY.search(frame.file):
        return Whose.SYSTEM
    return Whose.USER


def _whose_native(frame: Frame) -> Whose:
    if frame.function == SIGNAL_FRAME or not frame.module:
        return Whose.UNKNOWN
    shared = _SHARED.search(posixpath.basename(frame.module)) is not None
    foreign = _foreign(frame, shared)
    if OFFSET.search(frame.function):
        return Whose.NAMELESS if foreign is None else Whose.UNKNOWN
    if foreign is not None:
        return foreign
    if not frame.line:
        return Whose.UNSURE if shared else Whose.USER
    if _RUST_LIBRARY.search(frame.file):
        return Whose.SYSTEM
    if _RUST_PACKAGES.search(frame.file):
        return Whose.PACKAGE
    return Whose.HEADER if _HEADERS.search(frame.file) else Whose.USER


def _foreign(frame: Frame, shared: bool) -> Whose | None:
    """Whose its module is, if not the user's."""
    if _PYTHON_PACKAGES.search(frame.module) or frame.function.startswith("__pyx_"):
        return Whose.PACKAGE
    runtime = is_interpreter(frame.module) or _RUNTIMES.match(posixpath.basename(frame.module))
    if runtime or "/lib-dynload/" in frame.module or (shared and frame.module.startswith(_SYSTEM_FOLDERS)):
        return Whose.SYSTEM
    return None


def by_headline(found: Iterable[Origin]) -> tuple[Origin, ...]:
    """Origins with the same headline as one, largest first: the frames are those of the most common stack."""
    groups: dict[Frame, list[Origin]] = {}
    for origin in found:
        if origin.frames:
            groups.setdefault(origin.frames[origin.headline], []).append(origin)
    return largest_first(joined(group) for group in groups.values())


def joined(group: Sequence[Origin]) -> Origin:
    """Origins as one, with the frames of the most common."""
    most = max(group, key=lambda origin: origin.count)
    return msgspec.structs.replace(
        most,
        count=sum(origin.count for origin in group),
        stacks=sum(origin.stacks for origin in group),
        opened=_sum(origin.opened for origin in group),
        closed=_sum(origin.closed for origin in group),
        oldest_s=max((origin.oldest_s for origin in group if origin.oldest_s is not None), default=None),
        newest_s=min((origin.newest_s for origin in group if origin.newest_s is not None), default=None),
        per_second=_sum(origin.per_second for origin in group),
    )


_Number = TypeVar("_Number", int, float)


def _sum(values: Iterable[_Number | None]) -> _Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None


def largest_first(found: Iterable[Origin]) -> tuple[Origin, ...]:
    """Origins in the order that a report has."""
    return tuple(sorted(found, key=lambda origin: (-origin.count, -(origin.opened or 0))))
