"""The relay's loop in Python, for a machine where the C one could not be built. The same decisions, message by message;
native/relay_loop.c says why each is as it is. Several times slower, and it holds the GIL while it moves messages.
Bundles are taken apart, and none is made: each call and each reply is sent on its own.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import zmq

from datacenter.broker.call_frame import LABEL, call_id, frame_id, labelled, routing_id_of, with_id
from datacenter.broker.relay_loop import LoopLimits, Outcome, RelayCounts
from datacenter.sockets import bundles
from datacenter.sockets.owned import OwnedSocket

_BURST: Final = 64  # shorter than in C: the thread that stops it waits for the GIL as well
_LEAST_SWEEP_MS: Final = 100
_NEVER: Final = 1 << 63
_MOST_TIMEOUT_MS: Final = 1 << 40
_MOST_POLL_MS: Final = 1000 * 1000
_FAILURE: Final = b"\x96\x02\xcf" + bytes(8)  # an array of six, wire.Failure's tag, an id
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)

_Raw = Any  # zmq.Socket[bytes]; pyzmq's own stubs do not know the calls by number


@dataclass
class _Instance:
    raw: _Raw
    lost: bytes
    in_flight: int = 0
    ready: bool = False
    retired: bool = False
    full: bool = False  # until poll says that there is room

    @property
    def has_room(self) -> bool:
        return self.ready and not (self.retired or self.full)


@dataclass
class _Waiting:
    frame: bytes  # labelled
    id: int
    deadline_ms: int


class PythonRelayLoop:
    """See RelayLoop."""

    def __init__(self, front: OwnedSocket, wake_fd: int, limits: LoopLimits, expired: bytes) -> None:
        self._front: _Raw = front.raw
        self._wake_fd = wake_fd
        self._limits = limits
        self._expired = expired
        self._instances: dict[int, _Instance] = {}
        self._waiting: deque[_Waiting] = deque()
        self._earliest_deadline_ms = _NEVER  # no waiting call's is before it
        self._in_flight: dict[int, tuple[_Instance, int]] = {}  # id -> whose, and until when
        self._earliest_until_ms = _NEVER
        self._next_sweep_ms = 0
        self._now_ms = 0
        self._drained = False
        self._error = 0
        self._next = 0
        self._counts = dict.fromkeys(RelayCounts.__dataclass_fields__, 0)

    def add(self, instance: OwnedSocket, lost: bytes) -> int | None:
        slot = next((n for n in range(self._limits.max_instances) if n not in self._instances), None)
        if slot is not None:
            self._instances[slot] = _Instance(instance.raw, lost)
        return slot

    def ready(self, slot: int) -> None:
        self._instances[slot].ready = True

    def retire(self, slot: int) -> None:
        self._instances[slot].retired = True

    def in_flight(self, slot: int) -> int:
        return self._instances[slot].in_flight

    def remove(self, slot: int) -> int:
        instance = self._instances[slot]
        with contextlib.suppress(zmq.ZMQError):
            self._move_replies(instance, 100_000)
        lost = [number for number, (whose, _) in self._in_flight.items() if whose is instance]
        for number in lost:
            self._end_flight(number, instance)
            with contextlib.suppress(zmq.ZMQError):  # the context ends, and the clients see that
                self._answer(number, instance.lost, "lost")
        del self._instances[slot]
        return len(lost)

    def flush(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            for instance in self._instances.values():
                self._move_replies(instance, 1000)

    def error(self) -> int:
        return self._error

    def counts(self) -> RelayCounts:
        return RelayCounts(**self._counts)

    def close(self) -> None:
        self._waiting.clear()
        self._in_flight.clear()

    def run(self, timeout_ms: int) -> Outcome:
        self._look_at_clock()
        end_ms = _NEVER if timeout_ms < 0 else self._now_ms + timeout_ms
        try:
            self._hand_over()  # an instance may have become ready since, and nothing in the poll would tell of it
            while self._now_ms < end_ms:
                ready = dict(zmq.zmq_poll(self._poll_set(), self._poll_ms(end_ms)))
                self._look_at_clock()
                if self._wake_fd in ready:
                    return Outcome.WOKEN
                self._turn(ready)
                if self._front in ready and self._woken():
                    return Outcome.WOKEN
                self._hand_over()
                if self._drained:
                    self._drained = False
                    return Outcome.DRAINED
        except zmq.ZMQError as error:
            self._error = error.errno or 0
            return Outcome.TERMINATED if error.errno == zmq.ETERM else Outcome.FAILED
        return Outcome.TIMEOUT

    def _look_at_clock(self) -> None:
        self._now_ms = time.monotonic_ns() // 1_000_000

    def _poll_set(self) -> list[tuple[Any, int]]:
        wanted: list[tuple[Any, int]] = [(self._wake_fd, zmq.POLLIN)]
        wants_calls = len(self._waiting) < self._limits.max_waiting
        wanted.append((self._front, zmq.POLLIN if wants_calls else zmq.POLLERR))  # polled in any case: for ETERM
        for instance in self._instances.values():
            room = zmq.POLLOUT if instance.full and not instance.retired else 0
            wanted.append((instance.raw, zmq.POLLIN | room))
        return wanted

    def _poll_ms(self, end_ms: int) -> int:
        end_ms = min(end_ms, self._sweep_due_ms(), self._earliest_deadline_ms)
        return -1 if end_ms == _NEVER else min(max(0, end_ms - self._now_ms), _MOST_POLL_MS)

    def _turn(self, ready: dict[Any, int]) -> None:
        for instance in self._instances.values():
            events = ready.get(instance.raw, 0)
            if events & zmq.POLLOUT:
                instance.full = False
            if events & zmq.POLLIN:
                self._move_replies(instance, _BURST)
        # After the replies: one that has come is not overtaken by the end of its time.
        if self._sweep_due_ms() <= self._now_ms:
            self._sweep()
        if self._earliest_deadline_ms <= self._now_ms:
            self._expire_waiting()
        self._hand_over()
        if ready.get(self._front, 0) & zmq.POLLIN:
            self._take_calls()

    # --- what has had its time

    def _sweep_due_ms(self) -> int:
        return max(self._earliest_until_ms, self._next_sweep_ms) if self._in_flight else _NEVER

    def _sweep(self) -> None:
        """Forgets calls that nobody answered in time."""
        over = [(number, whose) for number, (whose, until_ms) in self._in_flight.items() if until_ms <= self._now_ms]
        for number, whose in over:
            self._end_flight(number, whose)
            self._counts["unanswered"] += 1
        self._earliest_until_ms = min((until_ms for _, until_ms in self._in_flight.values()), default=_NEVER)
        self._next_sweep_ms = self._now_ms + _LEAST_SWEEP_MS

    def _expire_waiting(self) -> None:
        """Ends the waiting calls whose deadline has passed."""
        over = [call for call in self._waiting if call.deadline_ms <= self._now_ms]
        self._waiting = deque(call for call in self._waiting if call.deadline_ms > self._now_ms)
        self._earliest_deadline_ms = min((call.deadline_ms for call in self._waiting), default=_NEVER)
        for call in over:
            self._answer(call.id, self._expired, "expired")

    # --- calls: front to back

    def _take_message(self) -> int:
        """Reads one message; its calls are put last of those that wait. Returns how many frames it had, malformed ones
        included. Raises zmq.Again when there is nothing.
        """
        client, frame = self._front.recv(_NOBLOCK), b""
        more = self._front.getsockopt(zmq.RCVMORE)
        if more:
            frame = self._front.recv(_NOBLOCK)
            more = self._front.getsockopt(zmq.RCVMORE)
        frames = [] if more else bundles.split(frame)
        if not frames:
            self._drop_rest(self._front)
            self._counts["malformed_calls"] += 1
        for part in frames:
            self._take_call(client, part)
        return len(frames) or 1

    def _take_call(self, client: bytes, frame: bytes) -> None:
        found = call_id(frame)
        number = labelled(found[0], client) if found else None
        if found is None or number is None:
            self._counts["malformed_calls"] += 1
            return
        deadline_ms = self._now_ms + min(found[1], _MOST_TIMEOUT_MS)
        self._waiting.append(_Waiting(with_id(frame, number), number, deadline_ms))
        self._earliest_deadline_ms = min(self._earliest_deadline_ms, deadline_ms)

    def _take_calls(self) -> None:
        taken = 0
        while taken < _BURST and len(self._waiting) < self._limits.max_waiting:
            try:
                taken += self._take_message()
            except zmq.Again:
                return

    def _woken(self) -> bool:
        """Asked between taking calls and handing them over: see move_calls in native/relay_loop.c."""
        return bool(zmq.zmq_poll([(self._wake_fd, zmq.POLLIN)], 0))

    def _hand_over(self) -> None:
        """Hands over what waits, the oldest first, while there is room."""
        while self._waiting:
            call = self._waiting[0]
            if call.deadline_ms <= self._now_ms:
                self._answer(call.id, self._expired, "expired")
            elif call.id in self._in_flight:  # two replies to one number could not be told apart
                self._counts["duplicate_calls"] += 1
            elif len(self._in_flight) >= self._limits.max_in_flight or not self._send(call):
                return
            self._waiting.popleft()
            if not self._waiting:
                self._earliest_deadline_ms = _NEVER

    def _send(self, call: _Waiting) -> bool:
        """To the instance with the fewest unanswered calls; equals take turns. False if none has room."""
        while True:
            slots = [slot for slot, instance in self._instances.items() if instance.has_room]
            if not slots:
                return False
            turn, most = self._next, self._limits.max_instances
            slot = min(slots, key=lambda slot: (self._instances[slot].in_flight, (slot - turn) % most))
            instance = self._instances[slot]
            try:
                instance.raw.send(call.frame, _NOBLOCK)
            except zmq.Again:
                instance.full = True
                continue
            self._next = slot + 1
            until_ms = call.deadline_ms + self._limits.late_reply_ms
            self._in_flight[call.id] = instance, until_ms
            self._earliest_until_ms = min(self._earliest_until_ms, until_ms)
            instance.in_flight += 1
            self._counts["calls"] += 1
            return True

    # --- replies: back to front

    def _end_flight(self, number: int, instance: _Instance) -> None:
        del self._in_flight[number]
        if not self._in_flight:
            self._earliest_until_ms = _NEVER
        instance.in_flight -= 1
        self._drained |= instance.retired and instance.in_flight == 0

    def _move_replies(self, source: _Instance, most: int) -> None:
        receive: Callable[[int], bytes] = source.raw.recv
        moved = 0
        while moved < most:
            try:
                frame = receive(_NOBLOCK)
            except zmq.Again:
                return
            frames = [] if source.raw.getsockopt(zmq.RCVMORE) else bundles.split(frame)
            if not frames:
                self._drop_rest(source.raw)
                self._counts["malformed_replies"] += 1
            for part in frames:
                self._move_reply(source, part)
            moved += len(frames) or 1

    def _move_reply(self, source: _Instance, frame: bytes) -> None:
        number = frame_id(frame)
        if number is None:
            self._counts["malformed_replies"] += 1
        elif self._in_flight.get(number, (None, 0))[0] is not source:
            self._counts["unknown_replies"] += 1
        else:
            self._end_flight(number, source)
            self._deliver(number, with_id(frame, number & ~LABEL), "replies")

    def _answer(self, number: int, tail: bytes, counter: str) -> None:
        """Ends a call with an answer of the relay's own."""
        self._deliver(number, with_id(_FAILURE, number & ~LABEL) + tail, counter)

    def _deliver(self, number: int, frame: bytes, counter: str) -> None:
        try:
            self._front.send(routing_id_of(number), _MORE)
        except zmq.Again:
            self._counts["replies_no_room"] += 1
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._counts["replies_no_client"] += 1
        else:
            self._front.send(frame, _NOBLOCK)
            self._counts[counter] += 1

    @staticmethod
    def _drop_rest(raw: _Raw) -> None:
        while raw.getsockopt(zmq.RCVMORE):
            raw.recv(_NOBLOCK)
