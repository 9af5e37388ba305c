"""Frames survive every cut of the stream, and what cannot be a frame is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacenter.errors import ProtocolError
from datacenter.prefork.framing import MAX_FRAME_BYTES, Unframer, framed


@given(st.lists(st.binary(max_size=50)), st.data())
def test_messages_come_whole_and_in_order_however_the_stream_is_cut(sent: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(framed(message) for message in sent)
    unframer, received = Unframer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += unframer.feed(stream[:size])
        stream = stream[size:]
    assert received == sent


def test_a_length_that_cannot_be_is_refused() -> None:
    with pytest.raises(ProtocolError, match="announced"):
        list(Unframer().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))
