"""What the terminal can show: width, colours, and whether characters beyond ASCII arrive."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

import msgspec

from leakline.errors import LeaklineError
from leakline.figures import grouped as grouped
from leakline.figures import printable as printable

READER_GONE = 141  # 128 + SIGPIPE, as shells report it
NARROWEST, WIDEST = 40, 110  # lines longer than this are tiring to read
_CODES = {"bold": "1", "dim": "2", "red": "1;31", "yellow": "1;33", "green": "1;32", "cyan": "36"}
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-~=+*#"


class Style(msgspec.Struct, frozen=True):
    """How to write for one stream."""

    width: int = 80
    colours: bool = False
    unicode: bool = True

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour of `_CODES`, where colours are wanted."""
        return f"\033[{_CODES[colour]}m{text}\033[0m" if self.colours and text else text

    def plain(self, text: str) -> str:
        """The text with its typographic characters replaced, where they would not arrive."""
        if self.unicode:
            return text
        for fancy, simple in (("…", "..."), ("×", "x"), ("–", "-"), ("→", "->"), ("←", "<-")):
            text = text.replace(fancy, simple)
        return text.encode("ascii", "backslashreplace").decode()

    def cut(self, text: str) -> str:
        """The text in one line of the terminal's width; for text without colours."""
        dots = "…" if self.unicode else "..."
        return text if len(text) <= self.width else text[: self.width - len(dots)] + dots

    def sparkline(self, values: Sequence[float], cells: int) -> str:
        """A chart one line high; each cell is the highest of its stretch, between the least and the greatest of all."""
        if not values:
            return ""
        bars = _BARS if self.unicode else _ASCII_BARS
        low, high = min(values), max(values)
        cells = min(cells, len(values))
        peaks = [max(values[len(values) * i // cells : len(values) * (i + 1) // cells]) for i in range(cells)]
        if high <= low:
            return bars[0] * cells
        return "".join(bars[round((peak - low) / (high - low) * (len(bars) - 1))] for peak in peaks)


def style_of(stream: TextIO) -> Style:
    """The style for a stream: no colours under NO_COLOR or when it is no terminal (FORCE_COLOR overrules the
    latter).
    """
    terminal = stream.isatty()
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    columns = shutil.get_terminal_size((100, 24)).columns if terminal or "COLUMNS" in os.environ else 100
    return Style(
        width=max(NARROWEST, min(columns, WIDEST)),
        colours=colours and (terminal or bool(os.environ.get("FORCE_COLOR"))),
        unicode=(stream.encoding or "").lower().replace("-", "") == "utf8",
    )


def write(text: str) -> None:
    """Write data to stdout at once, so that a reader of a pipe sees it when it is true.

    Ends the program when that reader is gone. Raises LeaklineError when nothing can be written, as on a full disk.
    """
    check_stdout()
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would be written, and complained about, once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(READER_GONE)
        raise LeaklineError(
            f"the report could not be written: {error.strerror}", "see where stdout leads to"
        ) from error


def check_stdout() -> None:
    """Raise LeaklineError if there is no stdout (`>&-`): better now than after the observation."""
    if sys.stdout is None:
        raise LeaklineError("stdout is closed: there is nowhere to write the report to", "leave out `>&-`")
