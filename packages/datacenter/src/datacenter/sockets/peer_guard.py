"""Keeps from libzmq what a peer could abort it with: native/peer_guard.c, in libzmq's own import table.

Three of libzmq's assertions can be reached by a peer, and by nothing that can be set or asked for beforehand: a claimed
routing id that a ROUTER's counter reaches next (socket_base.cpp:2113), an IPC listener's accept without a descriptor
(ipc_listener.cpp:376), and the end of a connection whose messages nobody takes (stream_engine_base.cpp:310). The C file
says how. Where the library cannot be loaded, `reason` says why, and the
counter at least begins at random: libzmq's own is the same in every process, since nobody seeds rand().
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from ctypes import c_int, c_uint64, c_void_p
from pathlib import Path
from typing import Final

from datacenter.errors import DatacenterError
from datacenter.sockets import fork
from datacenter.sockets.native_library import of_these_sources
from leakline.recorder import RecorderError, replace_import

log = logging.getLogger("datacenter.sockets")

LIBRARY: Final = Path(__file__).parent / "native" / "libpeerguard.so"
# A library of its own, or linked into pyzmq's extension module.
_LIBRARIES: Final = ("libzmq", "zmq/backend/")
_SYMBOLS: Final = ("accept4", "recv", "close", "epoll_ctl", "epoll_wait")
_HOOKED: Final = ("accept4", "close")  # also by the ledger


class PeerGuard:
    """One a process: `of_process()`. `reason` is "" if it works. Thread-safe; it goes on in a forked child."""

    def __init__(self) -> None:
        self.reason = ""
        self._lock = threading.Lock()
        try:
            self._library = ctypes.CDLL(str(LIBRARY))
            with of_these_sources():
                self._find()
        except OSError as error:
            self.reason = f"datacenter's native library could not be loaded: {error}"
        except DatacenterError as error:
            self.reason = f"{error.message}; {error.hint}"

    def _find(self) -> None:
        self._listener = self._library.peer_guard_listener
        self._listener.argtypes, self._listener.restype = [c_int, c_int], None
        self._refused = self._library.peer_guard_refused
        self._refused.argtypes, self._refused.restype = [], c_uint64
        self._begin_in_child = self._library.peer_guard_begin_in_child
        self._functions = {symbol: getattr(self._library, f"peer_guard_{symbol}") for symbol in _SYMBOLS}

    def install(self, *, hooked: bool) -> None:
        """Before a socket binds: in front of libzmq's imports, also after the ledger was opened anew and took them.

        hooked: the ledger's own hooks stand there now, and are called in their turn.
        """
        with fork.still(), self._lock:
            if self.reason:
                return
            try:
                slots = [self._replace(symbol, hooked) for symbol in _SYMBOLS]
            except RecorderError as error:
                self.reason = error.message
            else:
                if not all(slots):
                    self.reason = f"libzmq's imports of {', '.join(_SYMBOLS)} were not all found"
            if self.reason:
                log.warning("a peer could abort this process: %s", self.reason)

    def _replace(self, symbol: str, hooked: bool) -> int:
        function = ctypes.cast(self._functions[symbol], c_void_p).value or 0
        before: c_void_p | None = None
        if hooked and symbol in _HOOKED:
            before = c_void_p.in_dll(self._library, f"peer_guard_next_{symbol}")
        return sum(replace_import(name, symbol, function, before) for name in _LIBRARIES)

    def watch(self, listener: int) -> None:
        """From now on the connections that this listening descriptor accepts are judged, until libzmq closes it."""
        if not self.reason:
            self._listener(listener, 1)

    def begin_in_child(self) -> None:
        """In a forked child: nothing is watched any more, and whoever held the lock does not exist."""
        self._lock = threading.Lock()
        if not self.reason:
            self._begin_in_child()

    def refused(self) -> int:
        """How many connections were ended: they claimed a routing id, or do not speak ZMTP 3."""
        return 0 if self.reason else int(self._refused())


def seed() -> None:
    """Before a ROUTER is made where nothing guards it: its counter begins at what rand() says (random.cpp)."""
    ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "little")))


_of_process = PeerGuard()


def of_process() -> PeerGuard:
    """The guard of this process."""
    return _of_process


fork.in_child(_of_process.begin_in_child)
