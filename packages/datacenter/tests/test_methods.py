"""A served function's signature: what fits is decoded into its types, what does not is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from datacenter.errors import BadArgumentsError, NotServableError
from datacenter.methods import Method


@dataclass
class Point:
    x: int
    y: int = 0


def move(point: Point, by: int = 1, *, tags: list[str] | None = None) -> Point:
    raise AssertionError


def area(width: float, height: float = 2.0, unit: str = "m") -> str:
    raise AssertionError


def at(*positional: int) -> None:
    raise AssertionError


def plot(point: Point, label: str = "") -> None:
    raise AssertionError


def given(method: Method, *args: Any, **keywords: Any) -> tuple[Any, ...]:
    return method.arguments(Raw(msgspec.msgpack.encode(args)), Raw(msgspec.msgpack.encode(keywords)))


AREA = Method(area, "area", idempotent=False)


def test_arguments_are_decoded_into_their_types() -> None:
    assert given(Method(plot, "plot", idempotent=False), {"x": 1}) == (Point(1, 0), "")
    assert given(AREA, 1) == (1.0, 2.0, "m")
    assert given(AREA, 1, 3.5, "ft") == (1.0, 3.5, "ft")


def test_keywords_fill_what_is_between_with_defaults() -> None:
    assert given(AREA, 1, unit="ft") == (1.0, 2.0, "ft")
    assert given(AREA, width=4) == (4.0, 2.0, "m")


@pytest.mark.parametrize(
    ("args", "keywords", "text"),
    [
        ((), {}, "1 to 3 arguments, 0 were given"),
        ((1, 2, "m", 4), {}, "1 to 3 arguments, 4 were given"),
        (("x",), {}, "Expected `float`, got `str` - at `width`"),
        ((1,), {"width": 2}, "'width' was given twice"),
        ((1,), {"depth": 2}, "no parameter 'depth'"),
        ((), {"unit": "m"}, "'width' is missing"),
        ((1,), {"unit": 5}, "Expected `str`, got `int` - at `unit`"),
    ],
)
def test_what_does_not_fit_is_named(args: tuple[Any, ...], keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(BadArgumentsError) as caught:
        given(AREA, *args, **keywords)
    assert text in caught.value.message
    assert "area(width: float" in caught.value.message


def test_a_nested_value_is_named_with_its_path() -> None:
    with pytest.raises(BadArgumentsError, match=r"at `point.x`"):
        given(Method(plot, "plot", idempotent=False), {"x": "one"})


@pytest.mark.parametrize("function", [move, at])
def test_only_plain_parameters_can_be_served(function: Any) -> None:
    with pytest.raises(NotServableError, match="plain parameters"):
        Method(function, "name", idempotent=False)


def test_a_name_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(NotServableError, match="cannot name a method"):
        Method(area, "<lambda>", idempotent=False)


def test_a_mutable_default_is_not_shared_between_calls() -> None:
    def collect(items: list[int] = []) -> None:  # noqa: B006
        raise AssertionError

    method = Method(collect, "collect", idempotent=False)
    (first,) = given(method)
    first.append(1)
    assert given(method) == ([],)
