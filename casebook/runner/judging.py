"""Compares what leakline said, as its JSON, with what it must say. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from casebook.runner.expectation import Look, Place

Json = dict[str, Any]
AS_MANY = 0.9


class Judgement(msgspec.Struct, frozen=True):
    """`found`: the right finding was there, about the right kind. `line_right`: it named function, file and line (None:
    there is none to name). `why`: what was amiss, in words.
    """

    found: bool
    line_right: bool | None
    why: str = ""

    @property
    def right(self) -> bool:
        return self.found and self.line_right is not False


def judge(look: Look, place: Place | None, report: Json) -> Judgement:
    """Whether a report of the broken program says what it must."""
    told = [finding["id"] for finding in report["findings"]]
    if not look.finding:
        return Judgement(not told, None, f"nothing may be found, but {', '.join(told)} was" if told else "")
    finding = next((each for each in report["findings"] if each["id"] == look.finding), None)
    if finding is None:
        return Judgement(
            False, None if place is None else False, f"{look.finding} is missing; found: {told or 'nothing'}"
        )
    if look.kind and not _is_about(look.kind, place, report):
        return Judgement(False, None, f"{look.finding} was found, but nothing about {look.kind}: {report['counts']}")
    if place is None:
        return Judgement(True, None)
    told_places = list(_places(finding))
    if any(_is_at(each, place) for each in told_places[: _foremost(finding)]):
        return Judgement(True, True)
    wanted = f"{place.function} {place.file}:{place.line}"
    return Judgement(True, False, f"{wanted} is not named first, but {told_places[:3] or 'no line'}")


def others(report: Json) -> list[str]:
    """What was found in the program put right: must be empty."""
    return [f"{finding['id']} ({finding['severity']}): {finding['title']}" for finding in report["findings"]]


def _is_about(kind: str, place: Place | None, report: Json) -> bool:
    """The kind grows; or this line opened some of it, as recorded; or nothing grows, and there are some."""
    alive = (report.get("recording") or {}).get("alive", [])
    opened = any(each["kind"] == kind and place and _is_at(_headline(each["origin"]), place) for each in alive)
    return kind in report["growth"] or opened or (not report["growth"] and report["counts"].get(kind, 0) > 0)


def _places(finding: Json) -> Iterator[tuple[str, str, int]]:
    """(function, file, line) that a finding names, the most important first: its origins, else the lines of its
    evidence, which read `function (file.py:12)`.
    """
    for origin in finding.get("origins", ()):
        yield _headline(origin)
    for text in _texts(finding["evidence"]):
        for function, file, line in re.findall(r"([^\s(][^\n]*?) \(([\w.+-]+):(\d+)\)", text):
            yield function, file, int(line)


def _foremost(finding: Json) -> int:
    """How many of the places come first: one, but for lines that opened as many, give or take what is in flight."""
    counts: list[int] = [origin["count"] for origin in finding.get("origins", ())]
    return max(1, sum(count >= AS_MANY * counts[0] for count in counts))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _headline(origin: Json) -> tuple[str, str, int]:
    frame = origin["frames"][origin.get("headline", 0)]
    return frame["function"], frame["file"], frame["line"]


def _is_at(told: tuple[str, str, int], place: Place) -> bool:
    """`ServiceClient.ask` and `ServiceClient::ask(char const*)` are both the function `ask`."""
    function, file, line = told
    named = re.search(rf"(^|[.: >]){re.escape(place.function)}($|[(\[])", function) is not None
    return named and file.rpartition("/")[2] == place.file and line == place.line
