"""The command line of datacenter; `main` is the console script.

Data on stdout, everything else on stderr. Exit codes: 0 done, 1 the call or the command failed, 2 wrong usage, 3
nobody there, or nowhere to write to.

This file imports next to nothing by itself: what takes time is imported inside `main`, whose user may press Ctrl-C at
any moment.
"""

from __future__ import annotations

import os
import sys

from datacenter.errors import (
    AddressError,
    AddressInUseError,
    BadOptionError,
    BrokerUnreachableError,
    DatacenterError,
    InsecureAddressError,
    NotServableError,
)

USAGE = (AddressError, BadOptionError, InsecureAddressError, NotServableError)
NOBODY_THERE = (BrokerUnreachableError, AddressInUseError)
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main() -> None:
    """Entry point: runs a subcommand and turns every expected error into one message and an exit code."""
    try:
        _run()
    except DatacenterError as error:
        print(f"datacenter: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, USAGE) else 3 if isinstance(error, NOBODY_THERE) else 1)
    except BrokenPipeError:
        # The reader of our output has gone (`datacenter ls | head`); that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run() -> None:
    from datacenter.commands.app import app
    from leakline.errors import LeaklineError

    try:
        app()
    except LeaklineError as error:  # what was to be written could not be
        print(f"datacenter: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
