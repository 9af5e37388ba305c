"""What the relay's loop in Python reads and writes of a frame: native/call_frame.h says what, and why. Pure."""

from __future__ import annotations

from typing import Final

LEAST_FRAME: Final = 11  # up to the end of the id
LONGEST_NAME: Final = 128
ID_BIT: Final = 1 << 63  # of the id of every call that goes through a relay
LABEL_SHIFT: Final = 31
LABEL: Final = 0xFFFFFFFF << LABEL_SHIFT

_CALL_TAG: Final = 1
_LEAST_FIELDS: Final = 6


def frame_id(frame: bytes) -> int | None:
    """The id of a call or a reply; None if the frame is neither."""
    if len(frame) < LEAST_FRAME or frame[0] & 0xF0 != 0x90 or frame[1] > 0x7F or frame[2] != 0xCF:
        return None
    return int.from_bytes(frame[3:11], "big") if frame[3] & 0x80 else None


def call_id(frame: bytes) -> tuple[int, int] | None:
    """(id, timeout in ms) of a call; None for what is no call, or has a label already."""
    number = frame_id(frame)
    if number is None or number & LABEL or frame[0] < 0x90 | _LEAST_FIELDS or frame[1] != _CALL_TAG:
        return None
    try:
        at = _after_name(frame, _after_name(frame, LEAST_FRAME))
        size = 1 << (frame[at] - 0xCC) if 0xCC <= frame[at] <= 0xCF else 0
    except (IndexError, ValueError):
        return None
    if at + size + 1 >= len(frame) or (not size and frame[at] > 0x7F):  # the arguments are the service's to read
        return None
    return number, int.from_bytes(frame[at + 1 : at + 1 + size], "big") if size else frame[at]


def _after_name(frame: bytes, at: int) -> int:
    """Where the string at `at` ends. Raises IndexError or ValueError if there is none, or one longer than a name."""
    if frame[at] & 0xE0 == 0xA0:
        length, at = frame[at] & 0x1F, at + 1
    elif frame[at] == 0xD9:
        length, at = frame[at + 1], at + 2
    else:
        raise ValueError("no string")
    if length > LONGEST_NAME or at + length > len(frame):
        raise ValueError("no name")
    return at + length


def labelled(number: int, routing_id: bytes) -> int | None:
    """The id with the label that a routing id stands for; None for a routing id that no ROUTER makes up."""
    if len(routing_id) != 5 or routing_id[0]:
        return None
    return number | int.from_bytes(routing_id[1:], "big") << LABEL_SHIFT


def routing_id_of(number: int) -> bytes:
    """The routing id that the id's label stands for."""
    return b"\0" + ((number & LABEL) >> LABEL_SHIFT).to_bytes(4, "big")


def with_id(frame: bytes, number: int) -> bytes:
    """The frame with another id."""
    return frame[:3] + number.to_bytes(8, "big") + frame[LEAST_FRAME:]
