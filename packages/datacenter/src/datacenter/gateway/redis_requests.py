"""Where one Redis request ends and the next begins, in a stream that comes in pieces cut anywhere. Pure.

A request is a list of strings (`*2 $3 GET $1 k`), or words on a line, as typed by hand or piped through `redis-cli
--pipe`; both may come on one connection. hiredis is not used for it: it does not tell how much of a request that is not
complete it has taken, and makes room for as many words as are announced, up to 2^32.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import hiredis

_LIST, _STRING = ord("*"), ord("$")
_LONGEST_LINE: Final = 64 * 1024  # Redis' own limits, of a line of words, and of words
_MOST_WORDS: Final = 1024 * 1024
_LONGEST_NUMBER: Final = 20
_WORD: Final = re.compile(
    rb"""\s* (?=\S) ( [^\s"']* ) (?: "( (?: [^"\\] | \\. )* )" | '( (?: [^'\\] | \\. )* )' )? (?=\s|$)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


class Request(NamedTuple):
    """Its words, and the bytes that send it."""

    words: Sequence[bytes]
    packed: bytes


class RequestReader:
    """`feed(data)` returns the requests that are complete by now.

    Once `problem` is not empty, what came after them is no request, or longer than `max_bytes`; it reads no further.
    """

    def __init__(self, max_bytes: int) -> None:
        self.problem = ""
        self._max_bytes = max_bytes
        self._rest = bytearray()  # a request that is not complete
        self._at = 0  # up to here it was understood: these are its words, and so many are missing
        self._words: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> list[Request]:
        requests: list[Request] = []
        buffer: bytes | bytearray = data
        if self._rest:
            self._rest += data
            buffer = self._rest
        begin, size = 0, len(buffer)
        while begin < size and not self.problem:
            end = self._list(buffer, begin, requests) if buffer[begin] == _LIST else self._line(buffer, begin, requests)
            if end < 0:
                break
            begin = end
        if buffer is self._rest:
            del self._rest[:begin]
        else:
            self._rest += memoryview(buffer)[begin:]
        if len(self._rest) > self._max_bytes and not self.problem:
            self.problem = f"a request of more than {self._max_bytes} bytes"
        return requests

    def _list(self, buffer: bytes | bytearray, begin: int, requests: list[Request]) -> int:
        """Where the list at `begin` ends; -1: it is not complete, and `_at` is how far it was understood."""
        at, words = begin + self._at, self._words
        while self._missing or not self._at:
            line_end = buffer.find(b"\r\n", at)
            number = buffer[at + 1 : line_end] if 0 <= line_end <= at + _LONGEST_NUMBER else b""
            if not self._at:
                count = _number(number, _MOST_WORDS)
                if count is None:
                    return self._unknown(buffer, at, line_end, "invalid multibulk length")
                at, self._missing = line_end + 2, max(0, count)
            elif at < len(buffer) and buffer[at] != _STRING:
                self.problem = f"expected '$', got {bytes(buffer[at : at + 1])!r}"
                return -1
            else:
                length = _number(number, self._max_bytes)
                if length is None or length < 0:
                    return self._unknown(buffer, at, line_end, "invalid bulk length")
                end = line_end + 2 + length
                if end + 2 > len(buffer):
                    return -1
                words.append(bytes(buffer[line_end + 2 : end]))
                at = end + 2
                self._missing -= 1
            self._at = at - begin
        self._at, self._words = 0, []
        if words:
            requests.append(Request(words, bytes(buffer[begin:at])))
        return at

    def _unknown(self, buffer: bytes | bytearray, at: int, line_end: int, problem: str) -> int:
        """No number, or not the whole of it yet."""
        if line_end >= 0 or len(buffer) - at > _LONGEST_NUMBER:
            self.problem = problem
        return -1

    def _line(self, buffer: bytes | bytearray, begin: int, requests: list[Request]) -> int:
        """Where the line at `begin` ends; -1: it is not complete."""
        end = buffer.find(b"\n", begin)
        if (end if end >= 0 else len(buffer)) - begin > _LONGEST_LINE:
            self.problem = "too big inline request"
            return -1
        if end < 0:
            return -1
        words = words_of(bytes(buffer[begin:end]))
        if words is None:
            self.problem = "unbalanced quotes in request"
            return -1
        if words:
            packed = hiredis.pack_command(tuple(words))  # type: ignore[arg-type]  # it takes any number of words
            requests.append(Request(words, packed))
        return end + 1


def _number(digits: bytes | bytearray, most: int) -> int | None:
    """-1 for any negative one. None: it is none, or too large."""
    if digits.isdigit():
        number = int(digits)
        return number if number <= most else None
    return -1 if digits[:1] == b"-" and digits[1:].isdigit() else None


def words_of(line: bytes) -> list[bytes] | None:
    """The words of a line; "…" may hold escapes (\\n, \\x0a), '…' only \\'. None if its quotes do not match."""
    line = line.strip()
    if b'"' not in line and b"'" not in line:
        return line.split()
    words, at = [], 0
    while at < len(line):
        found = _WORD.match(line, at)
        if found is None:
            return None
        bare, double, single = found.groups(b"")
        words.append(bare + _ESCAPE.sub(_unescaped, double) + single.replace(b"\\'", b"'"))
        at = found.end()
    return words


def _unescaped(escape: re.Match[bytes]) -> bytes:
    code: bytes = escape[1]
    return bytes.fromhex(code[1:].decode()) if len(code) == 3 else _ESCAPED.get(code, code)
