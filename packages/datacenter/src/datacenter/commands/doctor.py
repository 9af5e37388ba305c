"""`datacenter doctor PID`: leakline."""

from __future__ import annotations

import sys

import typer


def doctor(context: typer.Context) -> None:
    """Say whether a process leaks descriptors, of which kind, how fast, until when, and why (this is `leakline`).

    \b
    Examples:
      datacenter doctor 4711
      datacenter doctor 4711 --for 30s --json
    """
    from leakline.commands import main

    sys.argv = ["leakline", *context.args]
    main()
