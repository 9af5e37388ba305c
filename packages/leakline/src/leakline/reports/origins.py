"""An origin for a person at a terminal: the line to look at first, then how the program came there."""

from __future__ import annotations

import posixpath
import re
import textwrap
from collections.abc import Iterable

from leakline.durations import in_words
from leakline.facts import Frame, Origin
from leakline.recorder.headline import Whose, by_headline, whose
from leakline.reports.style import Style, grouped, printable

_INDENT = "      "
_MOST_FRAMES = 12  # of the stack under a headline; the innermost ones say most
_ORIGINS = 5


def origin_lines(origins: Iterable[Origin], style: Style, *, most: int = _ORIGINS) -> list[str]:
    """A block for each of the largest headlines, an empty line between, and what was left out in one last line."""
    largest = by_headline(origins)
    lines: list[str] = []
    for origin in largest[:most]:
        lines += ["", *_block(origin, style)] if lines else _block(origin, style)
    left = largest[most:]
    if left:
        count = sum(origin.count for origin in left)
        lines += ["", style.paint(f"  {grouped(count)} more by {grouped(len(left))} other origins", "dim")]
    return [style.plain(line) for line in lines]


def _block(origin: Origin, style: Style) -> list[str]:
    count = f"  {grouped(origin.count)} × "
    function, place = _named(origin.frames[origin.headline], style.width - len(count))
    first = count + style.paint(function, "bold") + (f"  {place}" if place else "")
    told = textwrap.wrap(history(origin), style.width - len(_INDENT))
    lines = [first, *(style.paint(f"{_INDENT}{line}", "dim") for line in told)]
    for frame, hidden in frames_shown(origin)[:_MOST_FRAMES]:
        more = f"  (+{hidden})" if hidden else ""
        function, place = _named(frame, style.width - len(_INDENT) - len(more))
        lines.append(style.paint(f"{_INDENT}{function}" + (f"  {place}" if place else "") + more, "dim"))
    left = len(frames_shown(origin)) - _MOST_FRAMES
    return [*lines, style.paint(f"{_INDENT}… {left} more frames", "dim")] if left > 0 else lines


def history(origin: Origin) -> str:
    """What its line opened and closed, when, and by how many paths."""
    parts: list[str] = []
    if origin.opened is not None and origin.closed is not None:
        parts.append(f"{grouped(origin.opened)} opened, {grouped(origin.closed)} closed")
    if origin.oldest_s is not None:
        parts.append(f"first {in_words(origin.oldest_s)} ago")
    if origin.newest_s is not None and origin.count > 1:
        parts.append(f"last {in_words(origin.newest_s)} ago")
    if origin.stacks > 1:
        parts.append(f"by {grouped(origin.stacks)} call paths, most often this one")
    return ", ".join(parts)


def frames_shown(origin: Origin) -> list[tuple[Frame, int]]:
    """The frames worth a line, and how many others each stands for: of a run within one library, the outermost, which
    is what the user's code called. The headline is always among them.
    """
    shown: list[tuple[Frame, int]] = []
    run: list[Frame] = []
    for index, frame in enumerate(origin.frames):
        library = index != origin.headline and whose(frame) >= Whose.HEADER
        if run and (not library or _where(frame) != _where(run[-1])):
            shown.append(_standing_for(run))
            run = []
        if library:
            run.append(frame)
        else:
            shown.append((frame, 0))
    if run:
        shown.append(_standing_for(run))
    return shown


def _standing_for(run: list[Frame]) -> tuple[Frame, int]:
    named = [frame for frame in run if whose(frame) != Whose.UNKNOWN]
    return (named or run)[-1], len(run) - 1


def _where(frame: Frame) -> str:
    """What a frame is abbreviated with: its library, the headers in one program, the modules of one folder."""
    return frame.module or posixpath.dirname(frame.file)


def named(frame: Frame) -> tuple[str, str]:
    """Function and place: of a library its file's name alone; no place where the function names it already."""
    library = whose(frame) >= Whose.HEADER
    path = printable(frame.file)
    if library or not frame.line:
        path = posixpath.basename(path)
    place = f"{path}:{frame.line}" if frame.line else path
    function = short_name(printable(frame.function))
    return function, "" if function.startswith(f"{place}+0x") else place


def _named(frame: Frame, room: int) -> tuple[str, str]:
    """Function and place, both cut to what has room: of the function its beginning, of the place its end."""
    function, place = named(frame)
    least = min(len(place), max(20, room - len(function) - 2))
    if len(place) > least:
        place = "…" + place[len(place) - least + 1 :]
    room -= len(place) + 2
    return (function if len(function) <= room else function[: max(1, room - 1)] + "…"), place


_TOKENS = re.compile(
    r"(\(anonymous namespace\)|\{lambda\(.*?\)#\d+\}|operator(?:\(\)|<=>|<<=?|>>=?|<=?|>=?|->\*?)|[<>( ])"
)


def short_name(function: str) -> str:
    """A C++ function without result, parameters and arguments of templates: `app::Client<…>::query`; others whole."""
    if "(" not in function or function.startswith("<"):
        return function
    name, depth = "", 0
    for token in _TOKENS.split(function):
        if token == "<":
            name += "" if depth else "<…>"
            depth += 1
        elif token == ">":
            depth -= 1
        elif depth or not token:
            continue
        elif token == "(":
            break
        elif token == " ":
            name = f"{name} " if "operator" in name else ""
        else:
            name += token
    return name or function
