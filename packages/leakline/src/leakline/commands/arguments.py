"""Arguments and options that several subcommands share."""

from __future__ import annotations

from typing import Annotated

import typer

Target = Annotated[
    str, typer.Argument(metavar="PID|NAME", help="The process: its number, or its name if it is the only one.")
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, metavar="N", help="The application's own ceiling; the process's limit if that is lower."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (schema 1) instead of text.")]
