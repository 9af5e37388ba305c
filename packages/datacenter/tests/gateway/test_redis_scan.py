"""Where Redis replies end: every reply, cut into pieces at any place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacenter.errors import ProtocolError
from datacenter.gateway.redis_scan import ReplyScanner

LARGEST = 1 << 20
text = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=12).map(str.encode)
lines = st.builds(lambda kind, words: kind + words + b"\r\n", st.sampled_from([b"+", b"-", b"(", b",", b"#"]), text)
numbers = st.integers().map(lambda number: b":%d\r\n" % number)
strings = st.builds(
    lambda kind, data: b"%s%d\r\n%s\r\n" % (kind, len(data), data), st.sampled_from([b"$", b"=", b"!"]), st.binary()
)
nothing = st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"*0\r\n", b"%0\r\n", b"$0\r\n\r\n"])


def lists(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    plain = st.builds(
        lambda kind, items: b"%s%d\r\n%s" % (kind, len(items), b"".join(items)),
        st.sampled_from([b"*", b"~", b">"]),
        st.lists(inner, max_size=4),
    )
    pairs = st.lists(st.tuples(inner, inner), max_size=3).map(
        lambda items: b"%%%d\r\n%s" % (len(items), b"".join(a + b for a, b in items))
    )
    attributed = st.builds(lambda key, value, reply: b"|1\r\n" + key + value + reply, inner, inner, inner)
    return plain | pairs | attributed


replies = st.recursive(lines | numbers | strings | nothing, lists, max_leaves=12)


@given(st.lists(replies, min_size=1, max_size=5), st.lists(st.integers(1, 40), max_size=40))
def test_replies_come_out_as_they_went_in_however_they_are_cut(wanted: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(wanted)
    scanner = ReplyScanner(LARGEST)
    found: list[bytes] = []
    for size in sizes:
        found += scanner.feed(stream[:size])
        stream = stream[size:]
    found += scanner.feed(stream)
    assert found == wanted


@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b"$x\r\n", b"*\r\n", b"\x00\n", b"+" + b"a" * 70_000])
def test_what_is_no_reply_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ReplyScanner(LARGEST).feed(data)


def test_a_reply_beyond_the_bound_is_an_error_before_it_has_come() -> None:
    with pytest.raises(ProtocolError, match="1000001 bytes"):
        ReplyScanner(1_000_000).feed(b"$1000001\r\nabc")
    scanner = ReplyScanner(1000)
    with pytest.raises(ProtocolError, match="more than 1000"):
        scanner.feed(b"*1\r\n" * 300)
