"""Durations, as typed and as told."""

from __future__ import annotations

import pytest

from leakline.durations import in_words, seconds_of
from leakline.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10.0), ("2m", 120.0), ("500ms", 0.5), ("1.5h", 5400.0), ("7", 7.0), (" 3 s ", 3.0), ("24h", 86400.0)],
)
def test_durations_that_people_type(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "0s", "10x", "1e3", "25h", "٣s", "10 s s", "nan"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as error:
        seconds_of(text)
    assert error.value.exit_code == 2
    assert error.value.hint


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"),
        (24.4, "24 s"),
        (119.0, "119 s"),
        (200.0, "3 min 20 s"),
        (960.0, "16 min"),
        (7800.0, "2 h 10 min"),
        (5 * 86400.0, "5 days"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert in_words(seconds) == text
