"""Where one Redis reply ends and the next begins, in a stream that comes in pieces; RESP 2 and 3.

hiredis parses replies into values, and then `+OK` and `$2 OK` are the same; a gateway passes on what the server said,
so only the ends are looked for, and a long string is skipped, not looked at. Pure: bytes in, bytes out.

One loop without a call of ours for each reply: a call costs as much as a short reply does.
"""

from __future__ import annotations

from datacenter.errors import ProtocolError

_LINE = frozenset(b"+-:,#_(\r")  # the whole reply is one line
_STRING = frozenset(b"$!=")  # a length, so many bytes, and a line end
_PAIRS = frozenset(b"%|")  # a count, and twice as many replies
_MANY = frozenset(b"*~>") | _PAIRS  # a count, and so many replies
_ATTRIBUTE = ord("|")  # comes before the reply that it is about
_LONGEST_LINE = 64 * 1024


class ReplyScanner:
    """`feed(data)` returns the replies that are complete by now, each as the bytes that came.

    Raises ProtocolError for what is no reply, and for one of more than `max_bytes`. After that it is of no more use.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()  # a reply that is not complete
        self._at = 0  # up to here it was understood
        self._missing = 1  # so many replies are still to come before it is complete

    def feed(self, data: bytes) -> list[bytes]:
        buffer: bytes | bytearray = data
        if self._rest:
            self._rest += data
            buffer = self._rest
        replies: list[bytes] = []
        begin, at, missing = 0, self._at, self._missing
        while (line_end := buffer.find(b"\n", at)) >= 0:
            kind = buffer[at]
            if kind in _LINE:
                at = line_end + 1
                missing -= 1
            elif kind in _STRING:
                length = self._number(buffer, at, line_end)
                end = line_end + 1 + (length + 2 if length >= 0 else 0)
                if end > len(buffer):
                    if length > self._max_bytes:
                        raise ProtocolError(f"a reply of {length} bytes")
                    break
                at = end
                missing -= 1
            elif kind in _MANY:
                count = max(0, self._number(buffer, at, line_end)) * (2 if kind in _PAIRS else 1)
                missing += count - (kind != _ATTRIBUTE)
                at = line_end + 1
            else:
                raise _strange(buffer, at)
            if not missing:
                replies.append(bytes(buffer[begin:at]))
                begin, missing = at, 1
        else:
            if len(buffer) - at > _LONGEST_LINE:
                raise ProtocolError("a line without end")
        self._keep(buffer, begin)
        self._at, self._missing = at - begin, missing
        return replies

    def _keep(self, buffer: bytes | bytearray, begin: int) -> None:
        if buffer is self._rest:
            del self._rest[:begin]
        else:
            self._rest += memoryview(buffer)[begin:]
        if len(self._rest) > self._max_bytes:
            raise ProtocolError(f"a reply of more than {self._max_bytes} bytes")

    def _number(self, buffer: bytes | bytearray, at: int, line_end: int) -> int:
        try:
            return int(buffer[at + 1 : line_end])
        except ValueError:
            raise _strange(buffer, at) from None


def _strange(buffer: bytes | bytearray, at: int) -> ProtocolError:
    return ProtocolError(f"no reply of Redis: {bytes(buffer[at : at + 40])!r}")
