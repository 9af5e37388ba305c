"""Bundles, in C and in Python: split(join(x)) == x, what each writes the other reads, and no bytes do harm."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_bool, c_char_p, c_size_t, c_ubyte, c_uint, c_void_p, create_string_buffer

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datacenter.sockets import batches, bundles


class Bundle(ctypes.Structure):
    """struct bundle of native/bundle.h"""

    _fields_ = [("count", c_uint), ("size", c_size_t), ("bytes", c_ubyte * bundles.BYTES)]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(batches.LIBRARY))
    found.bundle_add.argtypes, found.bundle_add.restype = [POINTER(Bundle), c_char_p, c_size_t], c_bool
    found.bundle_message.argtypes, found.bundle_message.restype = [POINTER(Bundle), POINTER(c_size_t)], c_void_p
    found.bundle_frames.argtypes, found.bundle_frames.restype = [c_char_p, c_size_t], c_uint
    found.bundle_next.argtypes = [c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_size_t)]
    found.bundle_next.restype = c_void_p
    found.bundle_may.argtypes, found.bundle_may.restype = [c_char_p, c_size_t], c_bool
    return found


def split_in_c(library: ctypes.CDLL, message: bytes) -> list[bytes]:
    buffer = create_string_buffer(message, len(message) + 1)
    at, size, frames = c_size_t(0), c_size_t(0), []
    for _ in range(library.bundle_frames(message, len(message))):
        frame = library.bundle_next(buffer, len(message), byref(at), byref(size))
        frames.append(ctypes.string_at(frame, size.value))
    return frames


def join_in_c(library: ctypes.CDLL, frames: list[bytes]) -> list[bytes]:
    """The messages in which these frames travel."""
    messages: list[bytes] = []
    bundle, size = Bundle(), c_size_t(0)

    def send() -> None:
        if bundle.count:
            messages.append(ctypes.string_at(library.bundle_message(byref(bundle), byref(size)), size.value))
            bundle.count = 0

    for frame in frames:
        if library.bundle_add(byref(bundle), frame, len(frame)):
            continue
        send()
        if not library.bundle_add(byref(bundle), frame, len(frame)):
            messages.append(frame)
    send()
    return messages


def join_in_python(frames: list[bytes]) -> list[bytes]:
    messages: list[bytes] = []
    first = 0
    while first < len(frames):
        count = bundles.together(frames, first, len(frames))
        messages.append(bundles.join(frames[first : first + count]))
        first += count
    return messages


sizes = st.one_of(st.integers(0, 100), st.sampled_from([1, 1023, 1024, 1025, 3000, 20_000]))
frame_lists = st.lists(
    st.builds(
        lambda first, size: bytes([first]) * size, st.integers(0, 255).filter(lambda n: n != bundles.MARK), sizes
    ),
    max_size=200,
)


@settings(deadline=None)
@example(frames=[b"x"] * (2 * bundles.FRAMES + 1))
@example(frames=[bytes(1024)] * 40)
@given(frames=frame_lists)
def test_what_is_joined_is_split_again(library: ctypes.CDLL, frames: list[bytes]) -> None:
    messages = join_in_python(frames)
    assert messages == join_in_c(library, frames)
    assert [frame for message in messages for frame in bundles.split(message)] == frames
    assert [frame for message in messages for frame in split_in_c(library, message)] == frames
    for message in messages:
        assert len(message) <= max(bundles.BYTES, *map(len, frames))
        assert (message[:1] == bytes([bundles.MARK])) == (len(bundles.split(message)) > 1)


def length(number: int) -> bytes:
    return number.to_bytes(4, "little")


near_bundles = st.lists(
    st.one_of(
        st.binary(max_size=9), st.integers(0, 9).map(length), st.binary(max_size=9).map(lambda b: length(len(b)) + b)
    ),
    max_size=80,
).map(lambda parts: bytes([bundles.MARK]) + b"".join(parts))


@settings(deadline=None)
@example(message=b"")
@example(message=bytes([bundles.MARK]))
@example(message=bytes([bundles.MARK]) + length(1))
@example(message=bytes([bundles.MARK]) + length(0))
@example(message=bytes([bundles.MARK]) + length(2**32 - 1) + b"x")
@example(message=bytes([bundles.MARK]) + length(2) + b"x")
@example(message=bytes([bundles.MARK]) + length(1) + b"x")
@example(message=bytes([bundles.MARK]) + length(1) + b"x" + length(1))
@example(message=bytes([bundles.MARK]) + length(6) + bytes([bundles.MARK]) + length(1) + b"x")
@example(message=bytes([bundles.MARK]) + (length(1) + b"x") * bundles.FRAMES)
@example(message=bytes([bundles.MARK]) + (length(1) + b"x") * (bundles.FRAMES + 1))
@example(message=bytes([bundles.MARK]) + length(bundles.BYTES - 5) + bytes(bundles.BYTES - 5))
@example(message=bytes([bundles.MARK]) + length(bundles.BYTES - 4) + bytes(bundles.BYTES - 4))
@given(message=st.one_of(st.binary(max_size=50), near_bundles))
def test_both_read_the_same_in_any_bytes(library: ctypes.CDLL, message: bytes) -> None:
    frames = bundles.split(message)
    assert split_in_c(library, message) == frames
    if message[:1] != bytes([bundles.MARK]):
        assert frames == [message]
    elif frames:  # well-formed: exactly what is in it, within the bounds
        assert message == bytes([bundles.MARK]) + b"".join(length(len(frame)) + frame for frame in frames)
        assert len(frames) <= bundles.FRAMES
        assert len(message) <= bundles.BYTES
        assert all(frame and frame[0] != bundles.MARK for frame in frames)


def test_a_malformed_bundle_has_no_frames() -> None:
    good = bundles.join([b"one", b"two", b"three"])
    for size in range(1, len(good)):  # cut; between two frames what is left is a bundle
        assert bundles.split(good[:size]) == {8: [b"one"], 15: [b"one", b"two"]}.get(size, []), size
    assert len(bundles.split(good)) == 3


REPLY = bytes([0x93, 1, 0xCF, 0x80, 0, 0, 0, 0, 0, 0, 1, 0xC0])


@given(st.binary(max_size=20) | st.builds(lambda at, byte: REPLY[:at] + bytes([byte]) + REPLY[at + 1 :],
                                          st.integers(0, 11), st.integers(0, 255)))  # fmt: skip
@example(REPLY)
@example(REPLY[:10])
def test_both_know_the_same_replies_for_those_of_a_client_that_knows_bundles(
    library: ctypes.CDLL, frame: bytes
) -> None:
    assert bundles.may(frame) == library.bundle_may(frame, len(frame))


def test_only_replies_to_ids_with_the_highest_bit_travel_together() -> None:
    assert bundles.may(REPLY)
    for other in (b"\0" + REPLY[1:], REPLY[:3] + b"\x7f" + REPLY[4:], REPLY[:10], bytes([0x93, 1, 5, 0xC0]), b""):
        assert not bundles.may(other)
