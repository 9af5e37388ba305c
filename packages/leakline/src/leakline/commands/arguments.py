"""Arguments and options that several subcommands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from leakline import proc
from leakline.errors import UsageError

Target = Annotated[
    str, typer.Argument(metavar="PID|NAME", help="The process: its number, or its name if it is the only one.")
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, metavar="N", help="The application's own ceiling; the process's limit if that is lower."
    ),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write the report there as one page of HTML, with charts."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (schema 1) instead of text.")]


def process_of(target: str) -> int:
    """The process that is meant; raises a LeaklineError if there is none, several, or it is leakline itself."""
    pid = proc.find(target)
    if pid == os.getpid():
        raise UsageError("leakline would observe itself", "give the number of another process")
    return pid
