"""Monitor events: frames of libzmq to values, their names and masks, and the folding of repeats for people. Pure: no
I/O, no clock.

Version 1 is two frames: uint16 event and uint32 value in the machine's byte order, then the endpoint
(socket_base.cpp:1950-2010). What the value is depends on the event: a descriptor, an errno, a pause in milliseconds, or
nothing.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Final

import zmq

from datacenter.errors import ProtocolError

_HEAD: Final = struct.Struct("=HI")

NAMES: Final[dict[int, str]] = {
    0x0001: "CONNECTED",
    0x0002: "CONNECT_DELAYED",
    0x0004: "CONNECT_RETRIED",
    0x0008: "LISTENING",
    0x0010: "BIND_FAILED",
    0x0020: "ACCEPTED",
    0x0040: "ACCEPT_FAILED",
    0x0080: "CLOSED",
    0x0100: "CLOSE_FAILED",
    0x0200: "DISCONNECTED",
    0x0400: "MONITOR_STOPPED",
    0x0800: "HANDSHAKE_FAILED_NO_DETAIL",
    0x1000: "HANDSHAKE_SUCCEEDED",
    0x2000: "HANDSHAKE_FAILED_PROTOCOL",
    0x4000: "HANDSHAKE_FAILED_AUTH",
}

#: Never asked for: libzmq sends it from the thread that stops the monitor, which is the reaper if the socket was closed
#: first; with a full or absent reader that thread blocks for ever (socket_base.cpp:273, 2026). Nothing here waits for
#: it, so nothing is lost without it.
_STOPPED: Final = 0x0400

#: What a dead peer (three events for each attempt) or a listener at the descriptor limit (125 000 a second) would flood
#: the hub with.
_FLOODS: Final = 0x0002 | 0x0004 | 0x0080 | 0x0040 | 0x0100 | 0x0010

#: The mask for debugging: everything but MONITOR_STOPPED.
DEBUG_MASK: Final = 0x7FFF & ~_STOPPED

#: The usual mask. It bounds a dead peer to nothing, but a flapping one (a proxy that accepts and closes) still makes
#: three an attempt: CONNECTED, HANDSHAKE_FAILED_NO_DETAIL, DISCONNECTED. Hence the hub drains, always, whatever the
#: mask.
USUAL_MASK: Final = DEBUG_MASK & ~_FLOODS

_DESCRIPTOR: Final = frozenset({"CONNECTED", "LISTENING", "ACCEPTED", "CLOSED", "DISCONNECTED"})
_ERRNO: Final = frozenset(
    {"CONNECT_DELAYED", "BIND_FAILED", "ACCEPT_FAILED", "CLOSE_FAILED", "HANDSHAKE_FAILED_NO_DETAIL"}
)


@dataclass(frozen=True)
class MonitorEvent:
    """What libzmq said about one connection of one socket.

    `value` is a plain int whose meaning `explain()` tells; a descriptor in it may be closed, or somebody else's, by
    now. `endpoint` is the local address for a bound socket and the remote one for a connected one. `generation` is that
    of the socket: process-wide unique, so an event of a socket that is gone cannot be taken for one of its successor.
    `at` is time.monotonic() of the draining, in seconds.
    """

    name: str
    value: int
    endpoint: str
    owner: str
    generation: int
    at: float

    def explain(self) -> str:
        """The value in words: `descriptor 9`, `ECONNREFUSED`, `after 100 ms`, or ""."""
        if self.name in _DESCRIPTOR:
            return f"descriptor {self.value}"
        if self.name in _ERRNO:
            return errno.errorcode.get(self.value, f"errno {self.value}") if self.value else ""
        if self.name == "CONNECT_RETRIED":
            return f"after {self.value} ms"
        if self.name in ("HANDSHAKE_FAILED_PROTOCOL", "HANDSHAKE_FAILED_AUTH"):
            return f"code {self.value:#x}"
        return ""


def parse(head: bytes, endpoint: bytes, owner: str, generation: int, at: float) -> MonitorEvent:
    """One event from its two frames. Raises ProtocolError if they are not a version 1 event."""
    if len(head) != _HEAD.size:
        raise ProtocolError(
            f"A monitor event of {len(head)} bytes instead of {_HEAD.size}.",
            f"This is libzmq {zmq.zmq_version()}; 4.3 is known.",
        )
    number, value = _HEAD.unpack(head)
    name = NAMES.get(number, f"EVENT_{number:#06x}")
    return MonitorEvent(name, value, endpoint.decode(errors="replace"), owner, generation, at)


@dataclass
class _Run:
    """A row of equal events: the first was shown at once, `count` more since `since`."""

    since: float
    count: int
    last: MonitorEvent


class Folder:
    """Folds repeats: the first event of a row is a line at once; the rest of a window becomes `CONNECT_RETRIED ×312 in
    1 s`.

    Pure: time comes with the events. Equal means the same name, endpoint and socket. Holds at most `MOST` rows; beyond,
    all are told.
    """

    MOST: Final = 1024

    def __init__(self, window_s: float = 1.0) -> None:
        self.window_s = window_s
        self._runs: dict[tuple[str, str, int], _Run] = {}

    def add(self, event: MonitorEvent) -> list[str]:
        """Take an event; returns the lines to show now."""
        lines = self.due(event.at)
        key = (event.name, event.endpoint, event.generation)
        run = self._runs.get(key)
        if run is not None:
            run.count += 1
            run.last = event
            return lines
        if len(self._runs) >= self.MOST:
            lines += self.flush(event.at)
        self._runs[key] = _Run(event.at, 0, event)
        lines.append(_line(event))
        return lines

    def due(self, now: float) -> list[str]:
        """The lines of rows whose window has passed. A row that was quiet for a whole window is forgotten."""
        lines: list[str] = []
        for key in [key for key, run in self._runs.items() if now - run.since >= self.window_s]:
            run = self._runs[key]
            if run.count:
                lines.append(_folded(run, now))
                run.since, run.count = now, 0
            else:
                del self._runs[key]
        return lines

    def flush(self, now: float) -> list[str]:
        """The lines of all rows; forgets them."""
        lines = [_folded(run, now) for run in self._runs.values() if run.count]
        self._runs.clear()
        return lines

    def next_due(self) -> float | None:
        """When `due()` will next have something to do, in the time of the events; None if nothing is held."""
        if not self._runs:
            return None
        return min(run.since for run in self._runs.values()) + self.window_s


def _line(event: MonitorEvent, times: str = "") -> str:
    detail = f" ({event.explain()})" if event.explain() else ""
    return f"{event.name}{times}{detail} {event.endpoint} [{event.owner}]"


def _folded(run: _Run, now: float) -> str:
    seconds = now - run.since
    span = f"{seconds:.0f} s" if seconds >= 0.95 else f"{seconds * 1000:.0f} ms"
    return _line(run.last, f" ×{run.count} in {span}")
