"""Messages <-> a stream of bytes: four bytes of length, big-endian, before each. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from datacenter.errors import ProtocolError

#: no message of a family comes near; a longer one is no message
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_LENGTH: Final = 4


def framed(message: bytes) -> bytes:
    """The message as it travels. Raises ProtocolError for one that is too long."""
    if len(message) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a message of {len(message):,} bytes; a pipe takes {MAX_FRAME_BYTES:,}")
    return len(message).to_bytes(_LENGTH, "big") + message


class Unframer:
    """Takes the stream in pieces, however cut, and gives the messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The messages that `piece` completes. Raises ProtocolError at a length that cannot be."""
        self._rest += piece
        while len(self._rest) >= _LENGTH:
            length = int.from_bytes(self._rest[:_LENGTH], "big")
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a message of {length:,} bytes is announced; a pipe takes {MAX_FRAME_BYTES:,}")
            if len(self._rest) < _LENGTH + length:
                return
            message = bytes(self._rest[_LENGTH : _LENGTH + length])
            del self._rest[: _LENGTH + length]
            yield message
