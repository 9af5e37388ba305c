"""Whether anything moved since a look: what was opened and closed again did not, whatever took a number did."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakline.own_process.looks import look, unmoved
from leakline.own_process.recorder import OwnRecorder, let_go, own_recorder


@pytest.fixture
def recorder() -> Iterator[OwnRecorder]:
    recorder = own_recorder()
    yield recorder
    let_go(recorder)


@pytest.fixture
def number(tmp_path: Path) -> Iterator[int]:
    """A descriptor that is open before the recorder is there."""
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


def test_what_was_closed_again_did_not_move(number: int, recorder: OwnRecorder) -> None:
    before = look(recorder)
    assert unmoved(before, recorder)
    read, write = os.pipe()
    assert not unmoved(before, recorder)
    os.close(read)
    assert not unmoved(before, recorder)
    os.close(write)
    assert unmoved(before, recorder)
    assert before.counters != recorder.counters()


def test_another_descriptor_under_the_same_number_did(number: int, recorder: OwnRecorder) -> None:
    before = look(recorder)
    os.close(number)
    assert os.open("/etc/passwd", os.O_RDONLY) == number
    assert len(look(recorder).open) == len(before.open)
    assert not unmoved(before, recorder)


def test_a_duplicate_over_it_did_and_standard_streams_do_not_count(number: int, recorder: OwnRecorder) -> None:
    before = look(recorder)
    copy = os.dup(2)
    os.dup2(copy, 2)  # as whoever captures output does
    os.close(copy)
    assert unmoved(before, recorder)
    os.dup2(2, number)
    assert not unmoved(before, recorder)


def test_without_a_recorder_it_is_not_known(number: int) -> None:
    assert not unmoved(look(None), None)
