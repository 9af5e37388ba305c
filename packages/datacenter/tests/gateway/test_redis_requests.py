"""Where Redis requests end: every request, as a list or as words on a line, cut into pieces at any place."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacenter.gateway.redis_requests import RequestReader, words_of

LARGEST = 1 << 20
plain_word = st.text("abcXYZ019:{}$*+-", min_size=1, max_size=8).map(str.encode)
lists = st.lists(st.binary(max_size=30), min_size=1, max_size=5).map(
    lambda words: (words, hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]
)
lines = st.builds(
    lambda first, rest, end: ([first, *rest], b" ".join([first, *rest]) + end),
    st.text("abcXYZ019", min_size=1, max_size=8).map(str.encode),
    st.lists(plain_word, max_size=4),
    st.sampled_from([b"\r\n", b"\n"]),
)
nothing = st.sampled_from([b"\r\n", b"\n", b"*0\r\n", b"*-1\r\n"]).map(lambda data: (list[bytes](), data))


def pieces(stream: bytes, sizes: list[int]) -> list[bytes]:
    cut = []
    for size in sizes:
        cut.append(stream[:size])
        stream = stream[size:]
    return [*cut, stream]


@given(st.lists(lists | lines | nothing, min_size=1, max_size=6), st.lists(st.integers(1, 40), max_size=60))
def test_requests_come_out_as_they_went_in_however_they_are_cut(
    wanted: list[tuple[list[bytes], bytes]], sizes: list[int]
) -> None:
    reader = RequestReader(LARGEST)
    found = [request for piece in pieces(b"".join(sent for _, sent in wanted), sizes) for request in reader.feed(piece)]
    assert not reader.problem
    assert [list(request.words) for request in found] == [words for words, _ in wanted if words]
    assert all(request.packed == hiredis.pack_command(tuple(request.words)) for request in found)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 13])
def test_a_piece_that_ends_within_a_request_where_hiredis_keeps_no_byte_of_it(size: int) -> None:
    one = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n"
    reader = RequestReader(LARGEST)
    stream = one * 50
    found = [request.words for at in range(0, len(stream), size) for request in reader.feed(stream[at : at + size])]
    assert found == [[b"SET", b"k", b"value"]] * 50


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"*99999999999\r\n", "multibulk"),
        (b"*1048577\r\n", "multibulk"),
        (b"*" + b"9" * 40, "multibulk"),
        (b"*x\r\n", "multibulk"),
        (b"*1\r\n:5\r\n", "expected '$', got b':'"),
        (b"*1\r\n+PING\r\n", "expected '$'"),
        (b"*1\r\n$-x\r\n", "bulk"),
        (b"*1\r\n$x\r\n", "bulk"),
        (b"a" * 70_000, "inline"),
        (b'GET "a\r\n', "quotes"),
        (b"*1\r\n$-1\r\n", "bulk"),
        (b"*1\r\n$%d\r\n" % (LARGEST * 2), "bulk"),
        (b"*9\r\n" + (b"$600000\r\n" + b"a" * 600_000 + b"\r\n") * 2, "more than"),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_what_is_no_request_is_told_after_those_before_it(data: bytes, problem: str, cut: int) -> None:
    reader = RequestReader(LARGEST)
    stream = b"PING\r\n*1\r\n$4\r\nPING\r\n" + data
    found = [request.words for at in range(0, len(stream), cut) for request in reader.feed(stream[at : at + cut])]
    assert found == [[b"PING"], [b"PING"]]
    assert problem in reader.problem.lower()
    assert reader.feed(b"PING\r\n") == []


def test_no_room_is_made_for_as_many_words_as_are_announced() -> None:
    reader = RequestReader(LARGEST)
    for piece in (b"*1\r\n$4\r\nPING\r\n*", b"999999999\r\n"):
        reader.feed(piece)
    assert reader.problem == "invalid multibulk length"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"  SET a\t1 \r", [b"SET", b"a", b"1"]),
        (b'SET a "b c"', [b"SET", b"a", b"b c"]),
        (rb'SET a "\x00\"\n\q\\"', [b"SET", b"a", b'\x00"\nq\\']),
        (rb"SET a 'b \' \n'", [b"SET", b"a", rb"b ' \n"]),
        (b"SET \"\" ''", [b"SET", b"", b""]),
        (b'SET a"b c', None),
        (b'SET a"b"c', None),
        (b'SET "a"b', None),
        (b"SET 'a", None),
        (b'SET k foo"bar baz"', [b"SET", b"k", b"foobar baz"]),
        (b"", []),
    ],
)
def test_words_on_a_line(line: bytes, words: list[bytes] | None) -> None:
    assert words_of(line) == words
