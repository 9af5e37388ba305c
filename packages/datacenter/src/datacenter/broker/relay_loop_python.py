"""The relay's loop in Python, for a machine where the C one could not be built. The same decisions, message by message;
native/relay_loop.c says why each is as it is. Several times slower, and it holds the GIL while it moves messages.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import zmq

from datacenter.broker.relay_loop import Outcome, RelayCounts
from datacenter.sockets.owned import OwnedSocket

_BURST: Final = 64  # shorter than in C: the thread that stops it waits for the GIL as well
_LEAST_FRAME: Final = 11
_NUMBER_BITS: Final = 31
_LABEL: Final = 0xFFFFFFFF << _NUMBER_BITS
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)

_Raw = Any  # zmq.Socket[bytes]; pyzmq's own stubs do not know the calls by number


def label_call(client: bytes, frame: bytes) -> bytes | None:
    """The call with its client's number in its id; None if it is none."""
    number = _id_of(frame)
    if number is None or number & _LABEL or len(client) != 5 or client[0]:
        return None
    label = int.from_bytes(client[1:], "big") << _NUMBER_BITS
    return frame[:3] + (number | label).to_bytes(8, "big") + frame[11:]


def unlabel_reply(frame: bytes) -> tuple[bytes, bytes] | None:
    """(routing id of the client, the reply as it is for it); None if it is no reply."""
    number = _id_of(frame)
    if number is None:
        return None
    client = b"\0" + ((number & _LABEL) >> _NUMBER_BITS).to_bytes(4, "big")
    return client, frame[:3] + (number & ~_LABEL).to_bytes(8, "big") + frame[11:]


def _id_of(frame: bytes) -> int | None:
    if len(frame) < _LEAST_FRAME or frame[0] & 0xF0 != 0x90 or frame[1] > 0x7F or frame[2] != 0xCF:
        return None
    return int.from_bytes(frame[3:11], "big") if frame[3] & 0x80 else None


@dataclass
class _Instance:
    raw: _Raw
    in_flight: int = 0
    retired: bool = False
    full: bool = True  # until poll says that there is room: it may not be connected yet

    @property
    def has_room(self) -> bool:
        return not (self.retired or self.full)


class PythonRelayLoop:
    """See RelayLoop."""

    def __init__(self, front: OwnedSocket, wake_fd: int, max_instances: int) -> None:
        self._front: _Raw = front.raw
        self._wake_fd = wake_fd
        self._max_instances = max_instances
        self._instances: dict[int, _Instance] = {}
        self._held: bytes | None = None
        self._drained = False
        self._error = 0
        self._next = 0
        self._counts = dict.fromkeys(RelayCounts.__dataclass_fields__, 0)

    def add(self, instance: OwnedSocket) -> int | None:
        slot = next((n for n in range(self._max_instances) if n not in self._instances), None)
        if slot is not None:
            self._instances[slot] = _Instance(instance.raw)
        return slot

    def retire(self, slot: int) -> None:
        self._instances[slot].retired = True

    def in_flight(self, slot: int) -> int:
        return self._instances[slot].in_flight

    def remove(self, slot: int) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._move_replies(self._instances[slot], 100_000)
        del self._instances[slot]

    def flush(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            for instance in self._instances.values():
                self._move_replies(instance, 1000)

    def error(self) -> int:
        return self._error

    def counts(self) -> RelayCounts:
        return RelayCounts(**self._counts)

    def close(self) -> None:
        self._held = None

    def run(self, timeout_ms: int) -> Outcome:
        end = time.monotonic() + timeout_ms / 1000
        try:
            while True:
                left_ms = -1 if timeout_ms < 0 else int((end - time.monotonic()) * 1000)
                if timeout_ms >= 0 and left_ms <= 0:
                    return Outcome.TIMEOUT
                ready = dict(zmq.zmq_poll(self._poll_set(), left_ms))
                if self._wake_fd in ready:
                    return Outcome.WOKEN
                self._turn(ready)
                if self._drained:
                    self._drained = False
                    return Outcome.DRAINED
        except zmq.ZMQError as error:
            self._error = error.errno or 0
            return Outcome.TERMINATED if error.errno == zmq.ETERM else Outcome.FAILED

    def _poll_set(self) -> list[tuple[Any, int]]:
        wanted: list[tuple[Any, int]] = [(self._wake_fd, zmq.POLLIN)]
        wants_calls = self._held is None and any(instance.has_room for instance in self._instances.values())
        wanted.append((self._front, zmq.POLLIN if wants_calls else zmq.POLLERR))  # polled in any case: for ETERM
        for instance in self._instances.values():
            room = zmq.POLLOUT if instance.full and not instance.retired else 0
            wanted.append((instance.raw, zmq.POLLIN | room))
        return wanted

    def _turn(self, ready: dict[Any, int]) -> None:
        for instance in self._instances.values():
            events = ready.get(instance.raw, 0)
            if events & zmq.POLLOUT:
                instance.full = False
            if events & zmq.POLLIN:
                self._move_replies(instance, _BURST)
        if self._held is not None or ready.get(self._front, 0) & zmq.POLLIN:
            self._move_calls()

    # --- calls: front to back

    def _take_call(self) -> bytes | None:
        """One call, labelled; None for what is none. zmq.Again when there is nothing."""
        client, frame = self._front.recv(_NOBLOCK), b""
        more = self._front.getsockopt(zmq.RCVMORE)
        if more:
            frame = self._front.recv(_NOBLOCK)
            more = self._front.getsockopt(zmq.RCVMORE)
        call = None if more else label_call(client, frame)
        if call is None:
            self._drop_rest(self._front)
            self._counts["malformed_calls"] += 1
        return call

    def _move_calls(self) -> None:
        for _ in range(_BURST):
            if self._held is None:
                if not any(instance.has_room for instance in self._instances.values()):
                    return
                try:
                    self._held = self._take_call()
                except zmq.Again:
                    return
                if self._held is None:
                    continue
            if not self._hand_over(self._held):
                return  # held until poll tells of room
            self._held = None

    def _hand_over(self, call: bytes) -> bool:
        while True:
            slots = [slot for slot, instance in self._instances.items() if instance.has_room]
            if not slots:
                return False
            turn, most = self._next, self._max_instances
            slot = min(slots, key=lambda slot: (self._instances[slot].in_flight, (slot - turn) % most))
            instance = self._instances[slot]
            try:
                instance.raw.send(call, _NOBLOCK)
            except zmq.Again:
                instance.full = True
                continue
            self._next = slot + 1
            instance.in_flight += 1
            self._counts["calls"] += 1
            return True

    # --- replies: back to front

    def _move_replies(self, source: _Instance, most: int) -> None:
        receive: Callable[[int], bytes] = source.raw.recv
        for _ in range(most):
            try:
                frame = receive(_NOBLOCK)
            except zmq.Again:
                return
            found = None if source.raw.getsockopt(zmq.RCVMORE) else unlabel_reply(frame)
            if found is None:
                self._drop_rest(source.raw)
                self._counts["malformed_replies"] += 1
                continue
            if source.in_flight > 0:
                source.in_flight -= 1
                self._drained |= source.retired and source.in_flight == 0
            self._deliver(*found)

    def _deliver(self, client: bytes, frame: bytes) -> None:
        try:
            self._front.send(client, _MORE)
        except zmq.Again:
            self._counts["replies_no_room"] += 1
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._counts["replies_no_client"] += 1
        else:
            self._front.send(frame, _NOBLOCK)
            self._counts["replies"] += 1

    @staticmethod
    def _drop_rest(raw: _Raw) -> None:
        while raw.getsockopt(zmq.RCVMORE):
            raw.recv(_NOBLOCK)
