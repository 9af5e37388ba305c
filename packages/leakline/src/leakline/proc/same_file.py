"""Whether descriptors, also of several processes, are one open file (one offset, one set of flags): kcmp(2).

One inode is not enough: two processes that open a file by its path have an open file each, while what was inherited or
passed over a UNIX socket is the same one. (Of a socket the inode is enough: it cannot be opened twice.)
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import platform
from collections.abc import Iterable

_NUMBERS = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
_KCMP_FILE = 0
_ORDER = {0: 0, 1: -1, 2: 1}  # kcmp(2): equal, less, greater

Held = tuple[int, int]  # pid, descriptor


def same_open_file(one: Held, other: Held) -> bool | None:
    """None where the kernel does not tell: no permission to trace both, no kcmp in this kernel, or one is gone."""
    try:
        return _compare(one, other) == 0
    except OSError:
        return None


def grouped_by_open_file(held: Iterable[Held]) -> list[list[Held]] | None:
    """Those that are one open file, together; None where the kernel does not tell."""
    try:
        ordered = sorted(held, key=functools.cmp_to_key(_compare))
        groups: list[list[Held]] = [[each] for each in ordered[:1]]
        for before, each in itertools.pairwise(ordered):
            if _compare(before, each) == 0:
                groups[-1].append(each)
            else:
                groups.append([each])
    except OSError:
        return None
    return groups


def _compare(one: Held, other: Held) -> int:
    """The kernel's own order of open files (obfuscated addresses), as sorting wants it. Raises OSError."""
    number = _NUMBERS.get(platform.machine(), -1)
    words = (number, one[0], other[0], _KCMP_FILE, one[1], other[1])
    result = _libc().syscall(*map(ctypes.c_long, words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return _ORDER.get(result, 1)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
