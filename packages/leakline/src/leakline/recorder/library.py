"""Loads libleakline.so and gives its functions their types.

Two handles of one library: `quick` keeps the GIL, `slow` releases it. The quick functions take only the library's own
lock, whose holders never wait for the GIL; letting the GIL go for a microsecond would cost up to a switch interval
(5 ms) to get it back.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int32, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache, cached_property
from pathlib import Path

from leakline.recorder.errors import LibraryMissingError

LIBRARY = Path(__file__).parent / "native" / "libleakline.so"


class CEntry(ctypes.Structure):
    """struct leakline_entry of native/descriptor_table.h."""

    _fields_ = [
        ("number", c_int32),
        ("kind", c_uint32),
        ("owner", c_uint32),
        ("tid", c_uint32),
        ("source", c_uint32),
        ("inherited", c_uint32),
        ("generation", c_uint64),
        ("opened_at_ns", c_uint64),
        ("inode", c_uint64),
    ]


class CCounters(ctypes.Structure):
    """struct leakline_counters of native/descriptor_table.h."""

    _fields_ = [
        ("changes", c_uint64),
        ("opened", c_uint64),
        ("closed", c_uint64),
        ("unpublished", c_uint64),
        ("out_of_range", c_uint64),
        ("closed_in_child", c_uint64),
        ("strange_in_child", c_uint64),
    ]


class CHooked(ctypes.Structure):
    """struct leakline_hooked of native/import_hook.h."""

    _fields_ = [
        ("libraries", c_uint32),
        ("slots", c_uint32),
        ("failed", c_uint32),
        ("error", c_int32),
        ("functions", c_uint64),
    ]


class Library:
    """The functions of libleakline.so. Any thread may call them; what each does is in native/*.h."""

    def __init__(self, path: Path) -> None:
        try:
            slow = ctypes.CDLL(str(path), use_errno=True)
            quick = ctypes.PyDLL(str(path), use_errno=True)
        except OSError as error:
            raise LibraryMissingError(
                f"leakline's native library could not be loaded: {error}",
                "install a C compiler and `make`, then install leakline again (in a checkout: `make native`)",
            ) from error
        try:
            self._find(slow, quick)
        except AttributeError as error:
            raise LibraryMissingError(
                f"leakline's native library was built from other sources: {error}",
                "install leakline again (in a checkout: `make native`)",
            ) from error

    def _find(self, slow: ctypes.CDLL, quick: ctypes.PyDLL) -> None:
        self.table_create = slow.leakline_table_create
        self.table_create.argtypes, self.table_create.restype = [c_char_p], c_void_p
        self.table_close = slow.leakline_table_close
        self.table_close.argtypes, self.table_close.restype = [c_void_p], None
        self.table_close_in_child = quick.leakline_table_close_in_child
        self.table_close_in_child.argtypes, self.table_close_in_child.restype = [c_void_p], None
        self.hook_library = slow.leakline_hook_library
        self.hook_library.argtypes, self.hook_library.restype = [c_char_p, POINTER(CHooked)], None
        self.replace_import = slow.leakline_replace_import
        self.replace_import.argtypes = [c_char_p, c_char_p, c_void_p, POINTER(c_void_p), POINTER(CHooked)]
        self.replace_import.restype = None
        self.remote_run = slow.leakline_remote_run
        self.remote_run.argtypes, self.remote_run.restype = [c_void_p], c_int
        self.hook_name = quick.leakline_hook_name
        self.hook_name.argtypes, self.hook_name.restype = [c_uint], c_char_p
        self.hook_target = quick.leakline_hook_target
        self.hook_target.argtypes, self.hook_target.restype = [c_void_p], None
        self.hook_target_end = quick.leakline_hook_target_end
        self.hook_target_end.argtypes, self.hook_target_end.restype = [c_void_p], None
        self.standby_fill = quick.leakline_standby_fill
        self.standby_fill.argtypes, self.standby_fill.restype = [c_uint, c_uint], c_int
        self.standby_end = quick.leakline_standby_end
        self.standby_end.argtypes, self.standby_end.restype = [], None
        self.socket = quick.leakline_socket
        self.socket.argtypes, self.socket.restype = [c_int, c_int, c_int], c_int
        self.close = quick.leakline_close
        self.close.argtypes, self.close.restype = [c_int], c_int
        self.kind_name = quick.leakline_kind_name
        self.kind_name.argtypes, self.kind_name.restype = [c_uint32], c_char_p
        self.table_put = quick.leakline_table_put
        self.table_put.argtypes, self.table_put.restype = [c_void_p, c_int, c_uint32, c_uint32], c_int
        self.table_forget = quick.leakline_table_forget
        self.table_forget.argtypes, self.table_forget.restype = [c_void_p, c_int], c_int
        self.table_assign = quick.leakline_table_assign
        self.table_assign.argtypes, self.table_assign.restype = [c_void_p, c_int, c_uint32, c_uint64], c_int
        self.table_list = quick.leakline_table_list
        self.table_list.argtypes, self.table_list.restype = [c_void_p, POINTER(CEntry), c_size_t], c_size_t
        self.table_counters = quick.leakline_table_counters
        self.table_counters.argtypes, self.table_counters.restype = [c_void_p, POINTER(CCounters)], None
        self.table_complete = quick.leakline_table_complete
        self.table_complete.argtypes, self.table_complete.restype = [c_void_p, c_int, c_char_p], None
        self.owner_add = quick.leakline_owner_add
        self.owner_add.argtypes, self.owner_add.restype = [c_void_p, c_char_p, c_size_t], c_uint32
        self.owner_release = quick.leakline_owner_release
        self.owner_release.argtypes, self.owner_release.restype = [c_void_p, c_uint32], None
        self.owner_name = quick.leakline_owner_name
        self.owner_name.argtypes = [c_void_p, c_uint32, c_char_p, c_size_t]
        self.owner_name.restype = c_size_t
        self.owner_use = quick.leakline_owner_use
        self.owner_use.argtypes, self.owner_use.restype = [c_uint32], c_uint32

    @cached_property
    def kinds(self) -> list[str]:
        """The names of kinds, by number; the first is that of an empty slot."""
        names: list[str] = []
        while (name := self.kind_name(len(names))) is not None:
            names.append(name.decode("ascii"))
        return names


@cache
def library() -> Library:
    """The loaded library. LibraryMissingError when it is not there."""
    return Library(LIBRARY)
