"""Reports in files: written whole, or not at all."""

from __future__ import annotations

import os
import stat
import sys
from datetime import datetime
from pathlib import Path

from leakline.errors import LeaklineError, UsageError
from leakline.figures import printable
from leakline.observe import Report


def check_folder(file: Path | None) -> None:
    """Raise UsageError if there is no folder for it: better now than after the observation."""
    if file is None:
        return
    if file.is_dir():
        raise UsageError(f"{file} is a folder", "name a file in it")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "make it first, or name another place")


def write_file(file: Path, text: str) -> None:
    """A file is replaced, so that whoever reads it finds a whole one. A device, a pipe and what leakline has as its own
    stdout or stderr are written to: root would put a file in the place of /dev/null otherwise. Raises OSError.
    """
    try:
        there = file.stat()
    except FileNotFoundError:
        there = None
    streams = [os.fstat(number) for number in (1, 2)]
    if there and (not stat.S_ISREG(there.st_mode) or any(os.path.samestat(there, stream) for stream in streams)):
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
        return
    place = file.resolve()  # a link stays one
    part = place.with_name(place.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(place)
    except OSError:
        part.unlink(missing_ok=True)  # of a full disk
        raise


def write_page(file: Path | None, report: Report, why: str = "") -> None:
    """The report as a page of HTML, where one is wanted; says so on stderr. Raises LeaklineError."""
    if file is None:
        return
    from leakline.reports import html_report  # its template engine takes longer to import than all the rest

    text = html_report.render(report, datetime.now(), why)
    try:
        write_file(file, text)
    except OSError as error:
        raise LeaklineError(f"{file} could not be written: {error.strerror}", "name another place") from error
    if sys.stderr is not None:
        print(f"leakline: {printable(str(file))} is written: open it in a browser", file=sys.stderr)
