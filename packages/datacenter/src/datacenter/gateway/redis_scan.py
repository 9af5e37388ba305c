"""Where one Redis reply ends and the next begins, in a stream that comes in pieces; RESP 2 and 3.

hiredis parses replies into values, and then `+OK` and `$2 OK` are the same; a gateway passes on what the server said,
so only the ends are looked for, and a long string is skipped, not looked at. Pure: bytes in, bytes out.
"""

from __future__ import annotations

from datacenter.errors import ProtocolError

_LINE = b"+-:,#_(\r"  # the whole reply is one line
_STRING = b"$!="  # a length, so many bytes, and a line end
_LIST = b"*~>"  # a count, and so many replies
_PAIRS = b"%|"  # a count, and twice as many
_LONGEST_LINE = 64 * 1024


class ReplyScanner:
    """`feed(data)` returns the replies that are complete by now, each as the bytes that came.

    Raises ProtocolError for what is no reply, and for one of more than `max_bytes`. After that it is of no more use.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._at = 0  # up to here the first reply of the buffer was understood
        self._missing = 1  # so many replies are still to come before the first one is complete

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        replies: list[bytes] = []
        begin = 0
        while self._scan():
            replies.append(bytes(self._buffer[begin : self._at]))
            begin = self._at
            self._missing = 1
        if begin:
            del self._buffer[:begin]
            self._at -= begin
        if len(self._buffer) > self._max_bytes:
            raise ProtocolError(f"a reply of more than {self._max_bytes} bytes")
        return replies

    def _scan(self) -> bool:
        """Goes on where it stopped; True when the first reply is complete."""
        buffer = self._buffer
        while self._missing:
            line_end = buffer.find(b"\n", self._at)
            if line_end < 0:
                if len(buffer) - self._at > _LONGEST_LINE:
                    raise ProtocolError("a line without end")
                return False
            kind = buffer[self._at : self._at + 1]
            if kind in _LINE:
                self._at = line_end + 1
                self._missing -= 1
                continue
            try:
                count = int(buffer[self._at + 1 : line_end])
            except ValueError:
                raise ProtocolError(f"no reply of Redis: {bytes(buffer[self._at : self._at + 40])!r}") from None
            if kind in _STRING:
                end = line_end + 1 + (count + 2 if count >= 0 else 0)
                if end > len(buffer):
                    if count > self._max_bytes:
                        raise ProtocolError(f"a reply of {count} bytes")
                    return False
                self._at = end
                self._missing -= 1
            elif kind in _LIST or kind in _PAIRS:
                # An attribute (|) comes before the reply that it is about.
                self._missing += max(0, count) * (2 if kind in _PAIRS else 1) - (0 if kind == b"|" else 1)
                self._at = line_end + 1
            else:
                raise ProtocolError(f"no reply of Redis: {bytes(buffer[self._at : self._at + 40])!r}")
        return True
