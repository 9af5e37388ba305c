"""Names of functions as their source writes them: C++ (Itanium) and Rust (both manglings).

C++ is done by `__cxa_demangle` of a C++ runtime library, which is in nearly every system (else by c++filt; else names
stay as they are): the one function that knows all of the grammar, and it is the compiler's own.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from collections.abc import Callable

from leakline.recorder.demangle_rust import demangle_rust

# What compilers append to a name when they copy or split a function: it is the same function in the source.
_CLONE = re.compile(r"(\.(isra|part|constprop|cold|lto_priv|localalias|llvm|warm|hot|unlikely|exit|ltrans)(\.\d+)*)+$")
_RUNTIMES = ("libstdc++.so.6", "libc++abi.so.1", "libc++.so.1")
_LONGEST = 1 << 14  # a mangled name beyond this may unfold to megabytes
_FILTER_TIMEOUT_S = 2.0


@functools.lru_cache(maxsize=1 << 16)
def demangle(name: str) -> str:
    """The name in the source's own terms; what is not mangled comes back as it is."""
    plain = _CLONE.sub("", name) or name
    if len(plain) > _LONGEST:
        return plain
    rust = demangle_rust(plain)
    if rust is not None:
        return rust
    return _cpp()(plain) if plain.startswith(("_Z", "__Z")) else plain


@functools.lru_cache(maxsize=1)
def _cpp() -> Callable[[str], str]:
    for name in _RUNTIMES:
        try:
            return functools.partial(_by_runtime, *_runtime(name))
        except (OSError, AttributeError):
            continue
    program = shutil.which("c++filt") or shutil.which("llvm-cxxfilt")
    return functools.partial(_by_filter, program) if program else str


def _runtime(library: str) -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer]:
    function = ctypes.CDLL(library).__cxa_demangle
    function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
    function.restype = ctypes.c_void_p
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    free.restype = None
    return function, free


def _by_runtime(function: ctypes._NamedFuncPointer, free: ctypes._NamedFuncPointer, name: str) -> str:
    status = ctypes.c_int()
    text = function(name.encode("utf-8", "surrogateescape"), None, None, ctypes.byref(status))
    if not text:
        return name
    try:
        return ctypes.string_at(text).decode("utf-8", "replace")
    finally:
        free(text)


def _by_filter(program: str, name: str) -> str:
    try:
        done = subprocess.run(
            [program, name],
            capture_output=True,
            text=True,
            timeout=_FILTER_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return name
    return done.stdout.strip() or name
