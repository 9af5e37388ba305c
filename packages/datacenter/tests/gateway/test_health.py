"""The health of a foreign server: pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacenter.errors import BadOptionError
from datacenter.gateway.health import Health, HealthOptions, HealthWatch


def played(results: str, options: HealthOptions | None = None) -> list[Health | None]:
    watch = HealthWatch(options)
    return [watch.passed() if result == "p" else watch.failed() for result in results]


def test_one_failed_check_says_nothing() -> None:
    assert played("pfpfpf") == ["healthy", None, None, None, None, None]


def test_quiet_then_gone_then_back_after_two() -> None:
    assert played("pfffffpp") == ["healthy", None, "quiet", None, None, "gone", None, "healthy"]


def test_what_never_passed_is_neither_quiet_nor_gone() -> None:
    assert played("f" * 20 + "p") == [None] * 20 + ["healthy"]


def test_a_server_that_comes_and_goes_does_not_come_back() -> None:
    assert played("pff" + "pf" * 20)[3:] == [None] * 40


def test_gone_at_once_where_the_bounds_say_so() -> None:
    assert played("pf", HealthOptions(quiet_after=3, gone_after=1)) == ["healthy", "gone"]


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(BadOptionError, match="quiet_after=0"):
        HealthOptions(quiet_after=0)


@given(st.text("pf", max_size=60), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_over_every_order_of_results(results: str, quiet: int, gone: int, back: int) -> None:
    watch = HealthWatch(HealthOptions(quiet_after=quiet, gone_after=gone, back_after=back))
    for at, result in enumerate(results):
        before = watch.health
        now = watch.passed() if result == "p" else watch.failed()
        assert watch.health == (now or before)
        assert now != before
        since = results[: at + 1]
        if now == "quiet":
            assert since.endswith("f" * quiet)
            assert before == "healthy"
        if now == "gone":
            assert since.endswith("f" * gone)
            assert before in ("healthy", "quiet")
        if now == "healthy" and before != "absent":
            assert since.endswith("p" * back)
        if since.endswith("p" * back):
            assert watch.health == "healthy"
