"""Bundles: small frames that go to the same peer in the same turn of a loop, as one ZeroMQ message. native/bundle.h
says what they look like and why; this is the same in Python, for where the C libraries could not be built. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

#: the first byte: no MessagePack begins with it
MARK: Final = 0xC1
#: Bounds of one bundle, and of a frame that goes into one.
FRAMES: Final = 64
FRAME_BYTES: Final = 1024
BYTES: Final = 16 * 1024

_LENGTH: Final = 4


def largest_message(max_message_bytes: int) -> int:
    """What a data connection must let pass so that a bundle never ends it, where a call may have so many bytes."""
    return max(max_message_bytes, BYTES)


def together(frames: Sequence[bytes], first: int, last: int) -> int:
    """How many of the frames from `first` on, and before `last`, travel as one message: 1 or more."""
    size = 1
    count = 0
    for frame in islice(frames, first, min(last, first + FRAMES)):
        size += _LENGTH + len(frame)
        if not 0 < len(frame) <= FRAME_BYTES or frame[0] == MARK or size > BYTES:
            break
        count += 1
    return count or 1


def may(frame: bytes) -> bool:
    """Whether a frame is a reply to a call of a client that knows bundles; see native/bundle.h."""
    return len(frame) > 10 and frame[0] & 0xF0 == 0x90 and frame[1] < 0x80 and frame[2] == 0xCF and frame[3] >= 0x80


def join(frames: Sequence[bytes]) -> bytes:
    """The message of frames that travel together."""
    if len(frames) == 1:
        return frames[0]
    parts = [bytes([MARK])]
    for frame in frames:
        parts += (len(frame).to_bytes(_LENGTH, "little"), frame)
    return b"".join(parts)


def split(message: bytes) -> list[bytes]:
    """The frames of a received message; none if it is a malformed bundle."""
    if not message or message[0] != MARK:
        return [message]
    frames: list[bytes] = []
    size, at = len(message), 1
    if size > BYTES:
        return []
    while at < size:
        frame_at = at + _LENGTH
        at = frame_at + int.from_bytes(message[at:frame_at], "little")
        if len(frames) == FRAMES or not frame_at < at <= size or message[frame_at] == MARK:
            return []
        frames.append(message[frame_at:at])
    return frames
