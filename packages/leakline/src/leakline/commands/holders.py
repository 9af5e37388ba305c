"""`leakline holders PATH|:PORT`: which processes hold a file, a folder, a file system, a UNIX socket or a port."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from leakline.commands.arguments import AsJson
from leakline.proc import holders as reading
from leakline.proc.asked import asked
from leakline.reports import holders as report
from leakline.reports.style import style_of, write


def holders(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PATH|:PORT",
            help="A file, a folder, a mount point, a UNIX socket (also @name), or a local port: :8080, :53/udp.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Who holds a file or a port, and which of them have only inherited it?

    Descriptors, working directories, programs and mappings count; so do deleted files of that name, and processes in
    other network namespaces. Exit code 0 also if nobody holds it; 3 if it may be held by who could not be read.

    \b
    leakline holders :8080                  (address already in use: by whom?)
    leakline holders /var/log/app.log       (also one that was deleted or rotated away)
    leakline holders /mnt/usb               (a mount point: who keeps umount from working?)
    leakline holders /run/app.sock
    leakline holders @abstract --json
    """
    wanted = asked(what)
    held = reading.holders(wanted)
    reading.check(wanted, held)
    write(report.as_json(held) if as_json else report.as_text(held, style_of(sys.stdout)))
    if reading.hidden(held):
        raise typer.Exit(3)
