"""`leakline ls PID|NAME`: every open descriptor of a process."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from leakline import proc
from leakline.commands.arguments import AsJson, Target
from leakline.recorder.recordings import openers
from leakline.reports import listing
from leakline.reports.style import style_of, write


def ls(
    target: Target,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help="Only this kind (tcp, unix, eventfd, file, …); may be given several times."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every open descriptor: kind, role and state, addresses, what it points to.

    The last lines sum up: descriptors by kind, the limit, the highest number in use. Of a process with a recorder
    (`leakline run`, `leakline attach`) each line tells who opened it.

    \b
    leakline ls 1234
    leakline ls nginx --kind tcp --kind udp
    leakline ls 1234 | grep CLOSE_WAIT
    leakline ls 1234 --json | jq '.descriptors[] | select(.socket.role == "never-bound")'
    """
    snapshot = proc.snapshot(proc.find(target), threads=False, flags=True, libraries=False)
    wanted = frozenset(kinds or ())
    absent = sorted(wanted - snapshot.counts().keys())
    if absent:
        there = ", ".join(snapshot.counts()) or "none"
        print(f"leakline: process {snapshot.pid} has no {' or '.join(absent)}; its kinds: {there}", file=sys.stderr)
    terminal = sys.stdout.isatty()
    by = openers(snapshot)
    write(
        listing.as_json(snapshot, wanted, by)
        if as_json
        else listing.as_text(snapshot, wanted, style_of(sys.stdout), terminal, by)
    )
