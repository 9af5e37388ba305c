"""Names for native addresses: function, file and line, inlined functions included.

The function's name is the symbol table's, by exact extent. Lines and inlined functions are DWARF's, which `symbolic`
reads. It makes one index of a whole file (0.4 s of CPU for a libpython with 17 MB of it), so it is asked only for files
whose lines somebody will read, and once in a run. A function that DWARF describes only as inlined, though it was also
compiled by itself (gcc's identical code folding: 3 of 1000 in a libpython), keeps its name but has no line.
"""

from __future__ import annotations

import importlib
import os
import posixpath
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from leakline.facts import Frame
from leakline.recorder.demangle import demangle
from leakline.recorder.elf import Elf, Symbols, symbol_tables
from leakline.recorder.merge import SIGNAL_FRAME
from leakline.recorder.modules import DEBUG_FOLDERS, OpenFile, find_debug_file, find_module
from leakline.recorder.recording import Library

LARGEST_DEBUG_INFO = 256 << 20  # bytes; at libpython's rate, an index takes 5 s and 1 GB

# What every x86-64 C library's return from a signal is (`mov $15,%rax; syscall`), and aarch64's: unwinders know it by
# these bytes too.
_SIGNAL_RETURNS = (bytes.fromhex("48c7c00f0000000f05"), bytes.fromhex("681180d2010000d4"))
_GLIBC_ALIASES = ("__GI_", "__EI_")  # what glibc calls its own functions inside


class Spot(NamedTuple):
    """One function at an address, as the file says it; `file` is "" and `line` 0 where only the name is known."""

    function: str
    file: str = ""
    line: int = 0


class Symbolizer:
    """Names the addresses of one process. Holds files open until it is closed. Not thread-safe."""

    def __init__(
        self,
        libraries: Mapping[int, Library],
        *,
        pid: int | None = None,
        unchanged_since_s: float | None = None,
        debug_folders: Iterable[str] = DEBUG_FOLDERS,
    ) -> None:
        """`pid`: the process, in this namespace, if it is alive. `unchanged_since_s`: see `find_module`."""
        self._libraries = libraries
        self._pid = pid
        self._unchanged_since_s = unchanged_since_s
        self._debug_folders = tuple(debug_folders)
        self._modules: dict[int, _Module | None] = {}
        self.notes: list[str] = []  # what could not be named, and why, in words

    def __enter__(self) -> Symbolizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Idempotent; nothing can be named afterwards."""
        for module in self._modules.values():
            if module is not None:
                module.close()

    def frames(self, pc: int, library: int, *, exact: bool = False, lines: bool = True) -> tuple[Frame, ...]:
        """The functions at a return address, innermost (an inlined one) first; never empty.

        `exact`: pc is the next instruction itself, as in a frame that a signal interrupted. Without `lines`, only the
        function by the symbol table: fast however much debug information there is.
        """
        mapped = self._libraries.get(library)
        if mapped is None:
            return (Frame(function=f"0x{pc:x}", file="", line=0, language="native"),)
        return self._frames(pc, mapped, exact=exact, lines=lines)

    def _frames(self, pc: int, library: Library, *, exact: bool, lines: bool) -> tuple[Frame, ...]:
        # Libraries of wheels are found through $ORIGIN/../../: told as a person would write it.
        path = posixpath.normpath(library.path)
        module = self._module(library)
        spots: list[Spot] = []
        if module is not None and module.is_signal_return(pc - library.bias):
            spots = [Spot(SIGNAL_FRAME)]
        elif module is not None:
            # A return address is after the call, and may be the next line or function.
            spots = module.spots(pc - library.bias - (not exact), lines=lines)
        if not spots:
            spots = [Spot(f"{posixpath.basename(path) or path}+0x{pc - library.bias:x}")]
        return tuple(
            Frame(
                function=demangle(spot.function),
                file=spot.file or path,
                line=spot.line,
                language="native",
                module=path,
            )
            for spot in spots
        )

    def _module(self, library: Library) -> _Module | None:
        if library.number not in self._modules:
            self._modules[library.number] = self._open(library)
        return self._modules[library.number]

    def _open(self, library: Library) -> _Module | None:
        found = find_module(library, self._pid, self._unchanged_since_s)
        if isinstance(found, str):
            if library.path.startswith("/"):  # the kernel's own (linux-vdso.so.1) is no file
                self.notes.append(f"{library.path} {found}: its functions are shown as offsets")
            return None
        debug = None
        if not _has_debug(found.elf):
            debug = find_debug_file(found.elf, library.path, self._pid, self._debug_folders)
        return _Module(library.path, found, debug, self.notes)


class _Module:
    """One file with its symbols, and the lines when somebody asks for them. Owns the descriptors."""

    def __init__(self, path: str, found: OpenFile, debug: OpenFile | None, notes: list[str]) -> None:
        self._path, self._notes = path, notes
        self._code, self._code_descriptor = found
        self._debug, self._debug_descriptor = debug if debug is not None else found
        self._symbols: Symbols | None = None
        self._lines: Any = None
        self._lines_asked = False

    def close(self) -> None:
        for descriptor in {self._code_descriptor, self._debug_descriptor} - {-1}:
            os.close(descriptor)
        self._code_descriptor = self._debug_descriptor = -1

    def is_signal_return(self, address: int) -> bool:
        return self._code.code(address, len(_SIGNAL_RETURNS[0])).startswith(_SIGNAL_RETURNS)

    def spots(self, address: int, *, lines: bool) -> list[Spot]:
        """The functions at an address of the file, innermost first; empty if no table has it."""
        if self._symbols is None:
            best = self._debug if self._debug.has(".symtab") else self._code
            self._symbols = Symbols(symbol_tables(best))
        names = self._symbols.at(address)
        found = self._located(address) if lines else []
        if not found:
            return [Spot(name) for name in names[:1]]
        # The function itself: the symbol table's word, as `symbolic` may call a function in several pieces by the name
        # of whatever lies beside one of them (_PyEval_EvalFrameDefault of a CPython 3.11 with profile-guided layout).
        *inlined, outer = found
        if names and (outer.function not in names or outer.function.startswith(_GLIBC_ALIASES)):
            outer = outer._replace(function=names[0])
        return [spot for spot in (*inlined, outer) if spot.function]

    def _located(self, address: int) -> list[Spot]:
        if not self._lines_asked:
            self._lines_asked = True
            self._lines = self._index()
        relative = address - self._debug.base
        if self._lines is None or relative < 0:
            return []
        return [
            Spot(place.symbol or "", _source(place.full_path), place.line)
            for place in self._lines.lookup(relative)
            if place.full_path  # else it is from the symbol table, of which our own reading is stricter
        ]

    def _index(self) -> Any:
        if not _has_debug(self._debug):
            return None
        sections = self._debug.sections.items()
        if sum(section.size for name, section in sections if "debug_" in name) > LARGEST_DEBUG_INFO:
            megabytes = LARGEST_DEBUG_INFO >> 20
            self._notes.append(f"{self._path} has more than {megabytes} MB of debug information: no lines")
            return None
        try:
            debuginfo: Any = importlib.import_module("symbolic.debuginfo")
            exceptions: Any = importlib.import_module("symbolic.exceptions")
        except (ImportError, OSError) as error:
            self._notes.append(f"the library `symbolic` cannot be loaded ({error}): no lines of native functions")
            return None
        try:
            # Its bytes, not its path: `symbolic` maps a file; one that is cut short meanwhile would end us by SIGBUS.
            content = os.pread(self._debug_descriptor, os.fstat(self._debug_descriptor).st_size, 0)
            return next(debuginfo.Archive.from_bytes(content).iter_objects()).make_symcache()
        except (exceptions.SymbolicError, StopIteration) as error:
            self._notes.append(f"the debug information of {self._path} cannot be read ({error}): no lines")
            return None


def _source(path: str) -> str:
    """The path of a source file. A relative folder of compilation comes twice (`io/io/fopen.c`, of Debian's glibc)."""
    path = posixpath.normpath(path)
    folder, name = posixpath.split(path)
    parts = folder.split("/")
    half = len(parts) // 2
    if not path.startswith("/") and parts[:half] == parts[half:]:
        return posixpath.join(*parts[:half], name)
    return path


def _has_debug(elf: Elf) -> bool:
    return elf.has(".debug_info") or elf.has(".zdebug_info")
