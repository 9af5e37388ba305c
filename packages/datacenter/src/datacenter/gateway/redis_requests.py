"""Where one Redis request ends and the next begins, in a stream that comes in pieces cut anywhere. Pure.

A request is a list of strings (`*2 $3 GET $1 k`), or words on a line, as typed by hand or piped through `redis-cli
--pipe`; both may come on one connection. hiredis parses the former. It does not tell how many bytes of a request that
is not complete it has taken, so they are counted: what was fed, less what the complete ones take.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import hiredis

_FRAMED: Final = ord("*")
_STRINGS: Final = frozenset((bytes,))
_LONGEST_LINE: Final = 64 * 1024  # Redis' own limit
_INVALID_COUNT: Final = "invalid multibulk length"
_WORD: Final = re.compile(
    rb"""\s* (?: "( (?: [^"\\] | \\. )* )" (?=\s|$) | '( (?: [^'\\] | \\. )* )' (?=\s|$) | ( [^\s"']+ ) (?=\s|$) )""",
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
        self._framed = hiredis.Reader()
        self._partial = 0  # bytes of a framed request that is not complete
        self._line = b""  # of words on a line, without its end

    def feed(self, data: bytes) -> list[Request]:
        requests: list[Request] = []
        at = 0
        while at < len(data) and not self.problem:
            if self._partial or (not self._line and data[at] == _FRAMED):
                at = self._feed_framed(data, at, requests)
            else:
                at = self._feed_line(data, at, requests)
        return requests

    def _feed_framed(self, data: bytes, at: int, requests: list[Request]) -> int:
        count = data[at + 1 : at + 9]
        if not self._partial and len(count) == 8 and count.isdigit():  # Redis' own limit is seven digits long
            self.problem = _INVALID_COUNT
            return at
        self._framed.feed(data[at:] if at else data)
        self._partial += len(data) - at
        try:
            while (words := self._framed.gets()) is not False:
                if not isinstance(words, list) or not _STRINGS.issuperset(map(type, words)):
                    self.problem = "expected a list of strings"
                    return at
                packed = hiredis.pack_command(tuple(words))
                self._partial -= len(packed)
                if words:
                    requests.append(Request(words, packed))
        except hiredis.ProtocolError as error:
            return self._words_follow(data, at, str(error))
        except MemoryError:  # it makes room for as many words as are announced
            self.problem = _INVALID_COUNT
        if self._partial > self._max_bytes:
            self.problem = f"a request of more than {self._max_bytes} bytes"
        return len(data)

    def _words_follow(self, data: bytes, at: int, problem: str) -> int:
        """Where words on a line begin after framed requests, if that is why hiredis could not go on."""
        begin = len(data) - self._partial
        if begin <= at or data[begin] == _FRAMED:
            self.problem = problem
            return at
        self._framed = hiredis.Reader()
        self._partial = 0
        return begin

    def _feed_line(self, data: bytes, at: int, requests: list[Request]) -> int:
        end = data.find(b"\n", at)
        self._line += data[at : end if end >= 0 else len(data)]
        if len(self._line) > _LONGEST_LINE:
            self.problem = "too big inline request"
            return at
        if end < 0:
            return len(data)
        line, self._line = self._line, b""
        words = words_of(line)
        if words is None:
            self.problem = "unbalanced quotes in request"
        elif words:
            requests.append(Request(words, hiredis.pack_command(tuple(words))))  # type: ignore[arg-type]
        return end + 1


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
        double, single, bare = found.groups()
        if double is not None:
            words.append(_ESCAPE.sub(_unescaped, double))
        else:
            words.append(bare if single is None else single.replace(b"\\'", b"'"))
        at = found.end()
    return words


def _unescaped(escape: re.Match[bytes]) -> bytes:
    code: bytes = escape[1]
    return bytes.fromhex(code[1:].decode()) if len(code) == 3 else _ESCAPED.get(code, code)
